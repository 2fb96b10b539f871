"""Names that CTK's and Slicer's widgets have, from the headers of their sources.

    CTK     Libs/Widgets/ctkCollapsibleButton.h, ctkPathLineEdit.h, ctkSliderWidget.h
    Slicer  Libs/MRML/Widgets/qMRMLWidget.h, qMRMLNodeComboBox.h (with the base's QWidget names)
            Base/QTCore/qSlicerCoreApplication.h, and QApplication, for `slicer.app`

Only what stands there as Q_PROPERTY may be used without a call; slots, Q_INVOKABLE methods and
signals are methods in PythonQt.
"""

from __future__ import annotations

PROPERTIES = {
    "ctkCollapsibleButton": {
        "collapsed",
        "collapsedHeight",
        "contentsFrameShape",
        "contentsFrameShadow",
        "contentsLineWidth",
        "contentsMidLineWidth",
        "buttonTextAlignment",
        "indicatorAlignment",
        "text",  # of QAbstractButton
    },
    "ctkPathLineEdit": {
        "label",
        "filters",
        "currentPath",
        "options",
        "settingKey",
        "showBrowseButton",
        "showHistoryButton",
        "sizeAdjustPolicy",
        "minimumContentsLength",
        "nameFilters",
    },
    "ctkSliderWidget": {
        "decimals",
        "singleStep",
        "pageStep",
        "minimum",
        "maximum",
        "value",
        "prefix",
        "suffix",
        "tickInterval",
        "tickPosition",
        "autoSpinBoxWidth",
        "spinBoxAlignment",
        "tracking",
        "spinBoxVisible",
        "popupSlider",
    },
    "qMRMLWidget": set(),
    "qMRMLNodeComboBox": {
        "currentNodeID",
        "currentNodeId",
        "nodeTypes",
        "showHidden",
        "showChildNodeTypes",
        "hideChildNodeTypes",
        "baseName",
        "noneEnabled",
        "addEnabled",
        "removeEnabled",
        "editEnabled",
        "renameEnabled",
        "interactionNodeSingletonTag",
        "selectNodeUponCreation",
        "noneDisplay",
        "sizeAdjustPolicy",
    },
}
METHODS = {
    "ctkCollapsibleButton": {"contentsCollapsed", "toggled", "clicked", "click"},
    "ctkPathLineEdit": {
        "validInputChanged",
        "currentPathChanged",
        "setCurrentPath",
        "browse",
        "retrieveHistory",
        "addCurrentPathToHistory",
    },
    "ctkSliderWidget": {
        "reset",
        "setValue",
        "setSpinBoxVisible",
        "valueChanged",
        "valueIsChanging",
    },
    "qMRMLWidget": {"mrmlScene", "setMRMLScene", "mrmlSceneChanged"},
    "qMRMLNodeComboBox": {
        "mrmlScene",
        "addAttribute",
        "removeAttribute",
        "nodeCount",
        "nodeFromIndex",
        "currentNode",
        "sortFilterProxyModel",
        "setMRMLScene",
        "setCurrentNode",
        "setCurrentNodeID",
        "setCurrentNodeIndex",
        "addNode",
        "removeCurrentNode",
        "currentNodeChanged",
        "currentNodeIDChanged",
        "nodeActivated",
        "nodeAdded",
        "nodeAddedByUser",
    },
}
ENUMERATIONS = {"ctkPathLineEdit": {"Dirs", "Files", "Drives", "Readable", "Writable"}}
APPLICATION = {
    "applicationLogic",
    "applicationName",
    "clipboard",
    "connect",
    "layoutManager",
    "moduleManager",
    "processEvents",
    "settings",
    "startupEnvironment",
    "temporaryPath",
    "testingEnabled",
    "translate",
    "userSettings",
}
NAMESPACE = {
    "app",
    "dicomDatabase",
    "i18n",
    "modules",
    "mrmlScene",
    "parameterNodeWrapper",
    "util",
}
"""What Slicer adds to its Python namespace beside the classes of nodes and logics."""

"""Slicer's entry to the module "Segment with SAM2-UNet": the four classes it looks for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

try:
    from slicer.i18n import tr as _
    from slicer.i18n import translate
except ImportError:  # outside Slicer

    def _(text: str) -> str:
        return text

    def translate(_context: str, text: str) -> str:
        """Return the text as it is."""
        return text


class SAM2UNet(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        self.parent.title = _("Segment with SAM2-UNet")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = [
            "Segmentations",
            "Sequences",
            "SubjectHierarchy",
            "Terminologies",
            "Volumes",
        ]
        self.parent.contributors = ["The SAM2-UNet bundle contributors"]
        self.parent.helpText = _(
            "Segments the current slice, a range, a whole volume or a video with a SAM2-UNet "
            "network, into a segmentation that can be edited. Research software, not a medical "
            "device."
        )
        self.parent.acknowledgementText = _(
            "The network is described in: Xiong et al., SAM2-UNet: Segment Anything 2 makes strong "
            "encoder for natural and medical image segmentation, Visual Intelligence 4:2 (2026)."
        )
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self) -> None:
        """Add example data to Slicer's Sample Data module, which is loaded by now."""
        from SAM2UNetLib import Samples

        Samples.register(Path(__file__).parent / "Resources" / "Icons")


class SAM2UNetWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Makes the panel from its form and follows the scene."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: SAM2UNetLogic | None = None
        self.panel: Any = None

    def setup(self) -> None:
        """Load the form and bind it; called when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        from SAM2UNetLib import Terminology  # here, so that Slicer starts without them
        from SAM2UNetLib.Widget import Panel

        if hasattr(slicer.modules, "terminologies"):
            Terminology.load(slicer.modules.terminologies.logic())
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SAM2UNet.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SAM2UNetLogic()
        self.panel = Panel(self.ui, runs=self.logic.runs, source=sourceFolder(Path(__file__)))
        for event, slot in (
            (slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose),
            (slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose),
            (slicer.mrmlScene.StartImportEvent, self.onSceneStartImport),
            (slicer.mrmlScene.EndImportEvent, self.onSceneEndImport),
        ):
            self.addObserver(slicer.mrmlScene, event, slot)
        self.followParameterNode()

    def cleanup(self) -> None:
        """Stop what runs; called before the module is removed."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.follow(None)
            self.panel.close()

    def enter(self) -> None:
        """Called each time the user opens the module."""
        self.followParameterNode()
        self.panel.enter()

    def exit(self) -> None:
        """Called each time the user opens another module; a run goes on."""
        self.panel.follow(None)

    def onSceneStartClose(self, _caller: Any, _event: Any) -> None:
        """The scene's nodes are about to go: nothing may be written to them any more."""
        self.panel.forget()

    def onSceneEndClose(self, _caller: Any, _event: Any) -> None:
        """Start again with the new scene if the module is shown."""
        if self.parent.isEntered:
            self.followParameterNode()

    def onSceneStartImport(self, _caller: Any, _event: Any) -> None:
        """A scene is being loaded: lists that fill up must not write into its choices."""
        self.panel.follow(None)

    def onSceneEndImport(self, _caller: Any, _event: Any) -> None:
        """A scene was loaded into this one: show what it says."""
        if self.parent.isEntered:
            self.followParameterNode()

    def followParameterNode(self) -> None:
        """Show and keep the choices in the scene's parameter node."""
        from SAM2UNetLib.FrameFollower import FrameFollower

        FrameFollower.attachAll()
        self.panel.follow(self.logic.getParameterNode())


class SAM2UNetLogic(ScriptedLoadableModuleLogic):
    """What can be done without the panel.

    Attributes:
        runs: begins, refines and exports runs; see `SAM2UNetLib.Runs`.
    """

    def __init__(self) -> None:
        super().__init__()
        from SAM2UNetLib.Runs import Runs  # names classes of modules that are loaded by now

        self.runs = Runs()

    def getParameterNode(self) -> Any:
        """Return the choices that the scene keeps."""
        from SAM2UNetLib.Parameter import parameterOf

        return parameterOf(super().getParameterNode())


class SAM2UNetTest(ScriptedLoadableModuleTest):
    """Runs in Slicer, by ctest or by the button Reload and Test."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run every test."""
        for name in sorted(dir(self)):
            if name.startswith("test_"):
                self.setUp()
                getattr(self, name)()
                logging.info("%s passed", name)

    def test_choicesAreKeptInTheScene(self) -> None:
        """What is chosen is in the parameter node, where the scene is saved with it."""
        SAM2UNetLogic().getParameterNode().threshold = 0.25
        self.assertEqual(SAM2UNetLogic().getParameterNode().threshold, 0.25)

    def test_masksComeBackAsTheyWerePut(self) -> None:
        """A mask that is put into a segmentation covers the same voxels there."""
        from SAM2UNetLib import Inputs
        from SAM2UNetLib.SegmentationLogic import SegmentationLogic

        volume, task = self.makeVolume(), self.makeTask()
        extraction = Inputs.extract(volume, "volume")
        masks = (extraction.array > 0)[:, None].astype("uint8")  # (N, 1, H, W)
        logic = SegmentationLogic()
        node = logic.apply(extraction, masks, task)
        segment = node.GetSegmentation().GetNthSegmentID(0)
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)
        self.assertTrue((found == masks[:, 0]).all())
        self.assertEqual(int(found.sum()), 4 * 6 * 8)
        logic.undo()
        self.assertIsNone(node.GetScene())

    def test_whatDicomStatesGoesToTheWorker(self) -> None:
        """Of an image from DICOM the worker is told the modality; other images suit every task."""
        from dataclasses import replace

        from SAM2UNetLib import Inputs

        info = Inputs.describe(self.makeVolume())
        self.assertIsNone(info.sourceFor(self.makeTask()))
        source = replace(info, modality="CT", photometric="MONOCHROME2").sourceFor(self.makeTask())
        self.assertEqual(source["modality"], "CT")

    def makeVolume(self) -> Any:
        """Return a volume of 10 slices with a box of 4 x 6 x 8 voxels in it."""
        import numpy

        voxels = numpy.zeros((10, 20, 30), numpy.int16)
        voxels[3:7, 5:11, 9:17] = 100
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Box")
        slicer.util.updateVolumeFromArray(node, voxels)
        node.SetSpacing(0.5, 0.7, 2.0)
        return node

    def makeTask(self) -> dict[str, Any]:
        """Return a task of one class, as a `task.json` holds it."""
        return {
            "name": "box",
            "version": "1",
            "title": "Box",
            "threshold": 0.5,
            "accepts": {"modalities": ["ES"]},
            "classes": [
                {
                    "value": 1,
                    "name": "box",
                    "label": "Box",
                    "category": ["SCT", "49755003", "Morphologically Abnormal Structure"],
                    "type": ["SCT", "68496003", "Polyp of colon"],
                    "region": None,
                    "rgb": [86, 180, 233],
                }
            ],
        }


def sourceFolder(module: Path) -> Path | None:
    """Return the sources of `sam2unet` that came with the module, or None.

    Args:
        module: this file. In a checkout the sources lie two folders up, in an installed extension
            beside the module.
    """
    for folder in (module.parent / "SAM2UNetSource", module.parents[2]):
        if (folder / "pyproject.toml").is_file() and (folder / "sam2unet_core").is_dir():
            return folder
    return None

"""The parameter node wrapper: our choices over it, and the stand-in held beside the original.

The original is there where `slicer_sources` finds Slicer's sources; each test runs over both.
"""

from __future__ import annotations

import enum
import importlib.util
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Optional, Union

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import panel_cases
import parameter_stand_in
import qt_stand_ins
import slicer
import slicer_sources
import slicer_stand_ins
from PySide6 import QtWidgets

qt_stand_ins.speak_pythonqt(__name__)
WRAPPERS = ["stand-in", "original"] if slicer_sources.checkout() else ["stand-in"]
SCALAR, VECTOR = slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLVectorVolumeNode
SEGMENTATION, VIEW = slicer.vtkMRMLSegmentationNode, slicer.vtkMRMLSliceNode
UNSET = object()


class Part(enum.StrEnum):
    """An enumeration with a label, as our choice of what to segment has."""

    slice = "slice"
    volume = "volume"

    def label(self) -> str:
        return f"The {self.value}"


@pytest.fixture(params=WRAPPERS)
def wrapper(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The module `slicer.parameterNodeWrapper`, with an empty scene."""
    with (
        slicer_stand_ins.running_slicer(panel_cases.MODULE, tmp_path / "Slicer.ini"),
        slicer_stand_ins.real_scene(),
    ):
        if request.param == "stand-in":
            sys.modules[slicer_sources.WRAPPER] = parameter_stand_in
        yield sys.modules[slicer_sources.WRAPPER]


@pytest.fixture
def node(wrapper: Any) -> Any:
    """The parameter node of the scene."""
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "choices")


@pytest.fixture
def ours(wrapper: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our class `Parameter`, made by that wrapper."""
    monkeypatch.syspath_prepend(str(panel_cases.MODULE.parent))
    path = panel_cases.MODULE.parent / "SAM2UNetLib" / "Parameter.py"
    spec = importlib.util.spec_from_file_location("SAM2UNetLib.ParameterOverEither", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module.Parameter
    del sys.modules[spec.name]


def described(wrapper: Any, hint: Any, default: Any = UNSET) -> type:
    """Return a class with the one parameter `value`."""
    content: dict[str, Any] = {"__annotations__": {"value": hint}, "__module__": __name__}
    if default is not UNSET:
        content["value"] = default
    return wrapper.parameterNodeWrapper(type("Described", (), content))


def made(name: str) -> Any:
    """Return a new node in the scene, or a value that needs none."""
    return slicer.mrmlScene.AddNewNodeByClass(name)


# -- the table: annotation, default, and what the parameter holds at first

FIRST = {
    "an int begins at 0": (int, UNSET, 0),
    "a float begins at 0": (float, UNSET, 0.0),
    "a text begins empty": (str, UNSET, ""),
    "a bool begins false": (bool, UNSET, False),
    "a node begins as none": (VIEW, UNSET, None),
    "a union with None begins as none": (Union[SCALAR, VECTOR, None], UNSET, None),
    "an optional node begins as none": (Optional[SEGMENTATION], UNSET, None),
    "a union by bars begins as none": (SCALAR | VECTOR | None, UNSET, None),
    "an enumeration begins with its first member": (Part, UNSET, Part.slice),
    "the default of an enumeration is taken": (Part, Part.volume, Part.volume),
    "the default is taken": (int, 7, 7),
    "the default of a text is taken": (str, "slice", "slice"),
    "a float may have a whole default": (float, 1, 1.0),
    "a default at the bound": ("range", 99, 99),
    "a default of the choices": ("choice", "b", "b"),
}
REFUSED_FIRST = {
    "a union of nodes without None": (Union[SCALAR, VECTOR], UNSET, TypeError, "None"),
    "a range that the first value is below": ("range", UNSET, ValueError, "range"),
    "a default above the range": ("range", 100, ValueError, "range"),
    "a default that is none of the choices": ("choice", "z", ValueError, "one of|must be in"),
    "a default of another type": (int, "7", TypeError, "type"),
    "a float for an int": (int, 1.0, TypeError, "type"),
    "None for a number": (float, None, ValueError, "None"),
    "None for a text": (str, None, ValueError, "None"),
}
WRITTEN = {
    "an int": (int, 12),
    "a negative int": (int, -3),
    "a float keeps all its digits": (float, 0.1 + 0.2),
    "a text with a line feed and a colon": (str, "a: b\nc"),
    "a text with letters of other scripts": (str, "Pölyp \u7532"),
    "an empty text": (str, ""),
    "true": (bool, True),
    "the lower bound": ("range", 1),
    "a choice": ("choice", "a"),
    "a member of an enumeration": (Part, Part.volume),
    "NumPy's double, which is a float": (float, np.float64(0.25)),
}
REFUSED = {
    "None to an int": (int, None, ValueError, "None"),
    "None to a text": (str, None, ValueError, "None"),
    "None to a bool": (bool, None, ValueError, "None"),
    "a float to an int": (int, 2.0, TypeError, "type"),
    "a text to a float": (float, "0.5", TypeError, "type"),
    "a number to a text": (str, 5, TypeError, "type"),
    "an int to a bool": (bool, 1, TypeError, "type"),
    "a bool to an int": (int, True, (TypeError, ValueError), "type|literal"),
    "NumPy's int": (int, np.int64(3), TypeError, "type"),
    "NumPy's single": (float, np.float32(0.5), TypeError, "type"),
    "below the range": ("range", 0, ValueError, "range"),
    "above the range": ("range", 100, ValueError, "range"),
    "no number in a range": ("float range", math.nan, ValueError, "range"),
    "none of the choices": ("choice", "c", ValueError, "one of|must be in"),
    "a text to an enumeration": (Part, "volume", TypeError, "type"),
    "None to an enumeration": (Part, None, (TypeError, AttributeError), "type|None"),
    "a view to a segmentation": (SEGMENTATION, "vtkMRMLSliceNode", TypeError, "type"),
    "a model to a union": (Union[SCALAR, None], "vtkMRMLModelNode", TypeError, "type"),
    "a text to a node": (VIEW, "Red", TypeError, "type"),
    "a text to a union": (Union[SCALAR, VECTOR, None], "ct", TypeError, "type"),
}


def hint_of(wrapper: Any, hint: Any) -> Any:
    """Return the annotation, made of that wrapper's validators where it has some."""
    return {
        "range": Annotated[int, wrapper.WithinRange(1, 99)],
        "float range": Annotated[float, wrapper.WithinRange(0.0, 1.0)],
        "choice": Annotated[str, wrapper.Choice(["a", "b"])],
    }.get(hint if isinstance(hint, str) else "", hint)


def first_value(hint: Any) -> Any:
    """Return a default that these annotations take."""
    return {"range": 5, "choice": "b"}.get(hint if isinstance(hint, str) else "", UNSET)


@pytest.mark.parametrize("case", FIRST)
def test_what_a_new_parameter_node_holds(wrapper: Any, node: Any, case: str) -> None:
    hint, default, expected = FIRST[case]
    kept = described(wrapper, hint_of(wrapper, hint), default)(node)
    assert kept.value == expected
    assert type(kept.value) is type(expected) or expected is None


@pytest.mark.parametrize("case", REFUSED_FIRST)
def test_what_a_parameter_node_refuses_to_begin_with(wrapper: Any, node: Any, case: str) -> None:
    hint, default, error, words = REFUSED_FIRST[case]
    kind = described(wrapper, hint_of(wrapper, hint), default)
    with pytest.raises(error, match=words):
        kind(node)


@pytest.mark.parametrize("case", WRITTEN)
def test_what_is_written_is_read_by_whoever_looks(wrapper: Any, node: Any, case: str) -> None:
    hint, value = WRITTEN[case]
    kind = described(wrapper, hint_of(wrapper, hint), first_value(hint))
    kept, other = kind(node), kind(node)
    kept.value = value
    assert kept.value == value
    assert other.value == value
    assert kind(node).value == value


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_the_former_value(wrapper: Any, node: Any, case: str) -> None:
    hint, value, error, words = REFUSED[case]
    if isinstance(value, str) and value.startswith("vtkMRML"):
        value = made(value)
    kept = described(wrapper, hint_of(wrapper, hint), first_value(hint))(node)
    before = kept.value
    with pytest.raises(error, match=words):
        kept.value = value
    assert kept.value == before


@pytest.mark.parametrize(
    ("hint", "names"),
    [
        (VIEW, ["vtkMRMLSliceNode"]),
        (Optional[SEGMENTATION], ["vtkMRMLSegmentationNode"]),
        (Union[SCALAR, VECTOR, None], ["vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode"]),
        (SCALAR | VECTOR | None, ["vtkMRMLVectorVolumeNode", "vtkMRMLScalarVolumeNode"]),
        (SCALAR, ["vtkMRMLLabelMapVolumeNode"]),  # one of a class below it
    ],
)
def test_nodes_are_written_and_taken_back(
    wrapper: Any, node: Any, hint: Any, names: list[str]
) -> None:
    kind = described(wrapper, hint)
    kept, other = kind(node), kind(node)
    for name in names:
        volume = made(name)
        kept.value = volume
        assert kept.value is volume
        assert other.value is volume
    kept.value = None
    assert kept.value is None
    assert other.value is None


@pytest.mark.parametrize("hint", [VIEW, Union[VIEW, SCALAR, None]])
def test_a_node_that_leaves_the_scene_is_no_choice_any_more(
    wrapper: Any, node: Any, hint: Any
) -> None:
    kept = described(wrapper, hint)(node)
    view = made("vtkMRMLSliceNode")
    kept.value = view
    slicer.mrmlScene.RemoveNode(view)
    assert kept.value is None
    assert described(wrapper, hint)(node).value is None


def test_a_node_outside_the_scene_cannot_be_chosen(wrapper: Any, node: Any) -> None:
    kept = described(wrapper, VIEW)(node)
    kept.value = slicer.vtkMRMLSliceNode()
    assert kept.value is None


def test_a_default_does_not_replace_what_the_scene_holds(wrapper: Any, node: Any) -> None:
    described(wrapper, int, 7)(node).value = 3
    assert described(wrapper, int, 7)(node).value == 3


def test_a_value_in_the_scene_that_is_no_number_is_an_error(wrapper: Any, node: Any) -> None:
    node.SetParameter("value", "many")
    with pytest.raises(ValueError, match="many"):
        described(wrapper, int, 7)(node)


def test_writing_tells_those_who_watch_the_node(wrapper: Any, node: Any) -> None:
    kept = described(wrapper, int)(node)
    seen: list[int] = []
    node.AddObserver("ModifiedEvent", lambda *_: seen.append(kept.value))
    kept.value = 4
    assert seen[-1] == 4
    told = len(seen)
    kept.value = 4
    assert len(seen) == told


def test_an_annotation_that_cannot_be_kept_is_refused_at_once(wrapper: Any) -> None:
    with pytest.raises(Exception, match=r"set|serializer"):
        described(wrapper, set[int])


def test_a_name_that_the_wrapper_needs_is_refused(wrapper: Any) -> None:
    content = {"__annotations__": {"connectGui": int}, "__module__": __name__}
    with pytest.raises(ValueError, match="reserved"):
        wrapper.parameterNodeWrapper(type("Described", (), content))


WIDGETS = {
    "a spin box for an int": (QtWidgets.QSpinBox, "range", True),
    "a double spin box for a float": (QtWidgets.QDoubleSpinBox, "float range", True),
    "a check box for a bool": (QtWidgets.QCheckBox, bool, True),
    "a slider with bounds": (qt_stand_ins.ctkSliderWidget, "float range", True),
    "a slider without bounds": (qt_stand_ins.ctkSliderWidget, float, False),
    "a spin box for a float": (QtWidgets.QSpinBox, float, False),
    "a check box for an int": (QtWidgets.QCheckBox, int, False),
    "a selector for a node": (qt_stand_ins.qMRMLNodeComboBox, VIEW, True),
    "a selector for a union": (qt_stand_ins.qMRMLNodeComboBox, Union[VIEW, SCALAR, None], True),
    "a list for an enumeration": (QtWidgets.QComboBox, Part, True),
    "a list for a text": (QtWidgets.QComboBox, str, False),
    "a selector for an enumeration": (qt_stand_ins.qMRMLNodeComboBox, Part, False),
    "a selector for a text": (qt_stand_ins.qMRMLNodeComboBox, str, False),
}


@pytest.mark.parametrize("case", WIDGETS)
def test_which_widget_may_hold_which_parameter(wrapper: Any, node: Any, case: str) -> None:
    widget, hint, good = WIDGETS[case]
    held = widget()
    held.setProperty(slicer_stand_ins.PARAMETER_NAME, "value")
    kept = described(wrapper, hint_of(wrapper, hint), first_value(hint))(node)
    if good:
        kept.disconnectGui(kept.connectGui(SimpleNamespace(held=held)))
        return
    words = r"hold|unbounded|WithinRange|[Uu]nable|connector|Choice"
    with pytest.raises(Exception, match=words):
        kept.connectGui(SimpleNamespace(held=held))


def test_a_widget_of_a_parameter_that_is_not_there_is_refused(wrapper: Any, node: Any) -> None:
    held = QtWidgets.QSpinBox()
    held.setProperty(slicer_stand_ins.PARAMETER_NAME, "velue")
    with pytest.raises(ValueError, match="velue"):
        described(wrapper, int)(node).connectGui(SimpleNamespace(held=held))


def test_a_list_shows_the_labels_and_keeps_the_names(wrapper: Any, node: Any) -> None:
    """Whatever was in the list before, its greyed items too, is gone when it is connected."""
    held = QtWidgets.QComboBox()
    held.addItem("of the form")
    held.setProperty(slicer_stand_ins.PARAMETER_NAME, "value")
    kept = described(wrapper, Part, Part.volume)(node)
    kept.connectGui(SimpleNamespace(held=held))
    assert [held.itemText(n) for n in range(held.count)] == ["The slice", "The volume"]
    assert held.currentIndex == 1
    held.currentIndex = 0
    assert node.GetParameter("value") == "slice"
    kept.value = Part.volume
    assert held.currentIndex == 1
    node.SetParameter("value", "nothing of it")
    with pytest.raises(ValueError, match="is not a name"):
        described(wrapper, Part)(node)


def number(name: str = "value") -> Any:
    made = QtWidgets.QSpinBox()
    made.setProperty(slicer_stand_ins.PARAMETER_NAME, name)
    return made


def test_two_panels_may_be_connected_and_each_is_released_alone(wrapper: Any, node: Any) -> None:
    kept = described(wrapper, hint_of(wrapper, "range"), 5)(node)
    one, two = number(), number()
    first, second = (kept.connectGui(SimpleNamespace(held=each)) for each in (one, two))
    one.value = 6
    assert (kept.value, two.value) == (6, 6)
    kept.disconnectGui(first)
    two.value = 8
    assert (kept.value, one.value) == (8, 6)
    one.value = 3
    assert kept.value == 8
    kept.disconnectGui(second)
    kept.disconnectGui(second)  # once more does no harm
    kept.value = 1
    assert two.value == 8


def test_the_same_panel_connected_twice_says_the_same(wrapper: Any, node: Any) -> None:
    kept, held = described(wrapper, hint_of(wrapper, "range"), 5)(node), number()
    kept.connectGui(SimpleNamespace(held=held))
    kept.connectGui(SimpleNamespace(held=held))
    held.value = 6
    assert kept.value == 6
    kept.value = 7
    assert held.value == 7


def test_choices_of_a_scene_that_is_closed_are_those_of_a_new_node(wrapper: Any) -> None:
    """As a module's own node: a singleton, which a scene that is closed takes away."""
    kind = described(wrapper, hint_of(wrapper, "range"), 7)

    def singleton() -> Any:
        found = slicer.mrmlScene.GetSingletonNode("Ours", "vtkMRMLScriptedModuleNode")
        if found is None:
            found = slicer.vtkMRMLScriptedModuleNode()
            found.SetSingletonTag("Ours")
            found = slicer.mrmlScene.AddNode(found)
        return found

    kept, held = kind(singleton()), number()
    tag = kept.connectGui(SimpleNamespace(held=held))
    held.value = 3
    kept.disconnectGui(tag)
    slicer.mrmlScene.Clear(True)
    again = kind(singleton())
    assert again.value == 7
    again.connectGui(SimpleNamespace(held=held))
    assert held.value == 7


def test_a_scene_that_is_loaded_into_this_one_shows_what_it_says(
    wrapper: Any, tmp_path: Path
) -> None:
    kind = described(wrapper, hint_of(wrapper, "range"), 7)
    parameter_node = slicer.vtkMRMLScriptedModuleNode()
    parameter_node.SetSingletonTag("Ours")
    kept, held = kind(slicer.mrmlScene.AddNode(parameter_node)), number()
    tag = kept.connectGui(SimpleNamespace(held=held))
    held.value = 9
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    held.value = 2
    assert slicer.mrmlScene.Import()
    assert kept.value == 9
    kept.disconnectGui(tag)  # the original's widgets may lag behind: whoever shows them connects
    kept.connectGui(SimpleNamespace(held=held))  # anew when a scene was loaded
    assert held.value == 9


# -- our own choices


def test_our_choices_begin_without_any_node(ours: Any, node: Any) -> None:
    choices = ours(node)
    assert (choices.inputNode, choices.sliceView, choices.outputSegmentation) == (None, None, None)
    assert (choices.what, choices.task, choices.bundle) == ("slice", "", "")
    assert choices.weights == ""
    assert (choices.first, choices.last, choices.threshold) == (1, 0, 0.5)
    assert (choices.minimumSize, choices.smoothing) == (0, 0.0)
    assert not choices.force
    assert not choices.keepLargest


@pytest.mark.parametrize("name", ["vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode"])
def test_our_input_is_a_volume_or_a_colour_volume(ours: Any, node: Any, name: str) -> None:
    choices = ours(node)
    choices.inputNode = made(name)
    assert choices.inputNode.GetClassName() == name
    slicer.mrmlScene.RemoveNode(choices.inputNode)
    assert choices.inputNode is None
    choices.inputNode = None


def test_our_input_is_nothing_else(ours: Any, node: Any) -> None:
    with pytest.raises(TypeError, match="type"):
        ours(node).inputNode = made("vtkMRMLModelNode")


def test_the_proxy_stands_for_the_browser_that_an_older_scene_kept(
    wrapper: Any, node: Any, ours: Any
) -> None:
    """Version 1 had the browser in the list of images."""
    browser, frames = made("vtkMRMLSequenceBrowserNode"), made("vtkMRMLSequenceNode")
    frame = made("vtkMRMLVectorVolumeNode")
    slicer.util.updateVolumeFromArray(frame, np.zeros((1, 4, 5, 3), np.uint8))
    frames.SetDataNodeAtValue(frame, "0")
    browser.SetAndObserveMasterSequenceNodeID(frames.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    node.SetParameter("inputNode.2", "")
    node.SetNodeReferenceID("inputNode.2", browser.GetID())
    node.SetParameter("what", "sequence")
    choices = sys.modules["SAM2UNetLib.ParameterOverEither"].parameterOf(node)
    assert choices.inputNode is browser.GetProxyNode(frames)
    assert choices.what == "sequence"


@pytest.mark.parametrize("threshold", [0.0004, 0.375, 0.5, 0.9996])
def test_any_threshold_that_a_task_may_have_is_kept(ours: Any, node: Any, threshold: float) -> None:
    choices = ours(node)
    choices.threshold = threshold
    assert choices.threshold == threshold


def test_our_choices_come_back_with_the_scene(ours: Any, node: Any, tmp_path: Path) -> None:
    choices = ours(node)
    volume = made("vtkMRMLVectorVolumeNode")
    choices.inputNode, choices.task, choices.threshold = volume, "pölyp", 0.125
    choices.first, choices.last, choices.what = 3, 17, type(choices.what).range
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    slicer.mrmlScene.Clear(True)
    assert slicer.mrmlScene.Connect()
    again = ours(slicer.mrmlScene.GetFirstNodeByName("choices"))
    assert again.inputNode.GetClassName() == "vtkMRMLVectorVolumeNode"
    assert again.sliceView is None
    assert (again.task, again.threshold, again.what) == ("pölyp", 0.125, "range")
    assert (again.first, again.last) == (3, 17)

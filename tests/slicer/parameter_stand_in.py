"""A stand-in of Slicer's `parameterNodeWrapper`, at least as strict as the original.

As there, values live in the parameter node, so that they are saved with the scene: what a new node
lacks gets its default, checked like any value, and what is written is what is read. What the
original lets pass and breaks on later (an unknown attribute, a bool where an int is meant) is
refused at once. `test_parameter_node.py` holds the two side by side.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable
from typing import Any

import qt_stand_ins
import slicer
import vtk
from PySide6 import QtWidgets

qt_stand_ins.speak_pythonqt(__name__)
PARAMETER_NAME = "SlicerParameterName"
_SCALARS = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}


class WithinRange:
    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"range: expected {self.minimum} to {self.maximum}, got {value}")


class Choice:
    def __init__(self, choices: list) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"expected one of {self.choices}, got {value!r}")


class _Scalar:
    """A number, a text or a truth value, kept as text."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.default = kind()

    def check(self, value: Any) -> None:
        if value is None:
            raise ValueError("expected a value, got None")
        is_bool = isinstance(value, bool)
        if not isinstance(value, _SCALARS[self.kind]) or is_bool != (self.kind is bool):
            raise TypeError(f"type: expected {self.kind.__name__}, got {value!r}")

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, str(value))

    def read(self, node: Any, name: str) -> Any:
        text = node.GetParameter(name)
        return text == "True" if self.kind is bool else self.kind(text)


class _Enum:
    """A member of an enumeration, kept by its name."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.default = next(iter(kind))

    def check(self, value: Any) -> None:
        if not isinstance(value, self.kind):
            raise TypeError(f"type: expected {self.kind.__name__}, got {value!r}")

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, value.name)

    def read(self, node: Any, name: str) -> Any:
        key = node.GetParameter(name)
        if key not in self.kind.__members__:
            raise ValueError(f"{key!r} is not a name in {self.kind!r}")
        return self.kind[key]


class _Reference:
    """A node of one class, kept by its ID."""

    default = None

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.classes = (kind,)

    def check(self, value: Any) -> None:
        if value is not None and not isinstance(value, self.kind):
            raise TypeError(f"type: expected {self.kind}, got {type(value)}")

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, "")  # says that something was written, be it None
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class _Union:
    """A node of one of some classes, and None where the union names it; kept under its number."""

    default = None

    def __init__(self, members: tuple[type, ...]) -> None:
        self.members = members
        self.classes = tuple(each for each in members if each is not type(None))
        self._stores = [_Reference(each) for each in members]

    def check(self, value: Any) -> None:
        if not isinstance(value, self.members):
            raise TypeError(f"type: expected one of {self.members}, got {value!r}")

    def is_in(self, node: Any, name: str) -> bool:
        return any(node.HasParameter(f"{name}.{number}") for number in range(len(self.members)))

    def write(self, node: Any, name: str, value: Any) -> None:
        number = next(n for n, each in enumerate(self.members) if isinstance(value, each))
        with slicer.util.NodeModify(node):
            for other, store in enumerate(self._stores):
                store.remove(node, f"{name}.{other}")
            self._stores[number].write(node, f"{name}.{number}", value)

    def read(self, node: Any, name: str) -> Any:
        for number, store in enumerate(self._stores):
            if store.is_in(node, f"{name}.{number}"):
                return store.read(node, f"{name}.{number}")
        raise KeyError(name)


_Store = _Scalar | _Enum | _Reference | _Union


class _Parameter:
    """One annotation of the class: what may be written, and what is there at first."""

    def __init__(self, hint: Any, described: type, name: str) -> None:
        annotated = typing.get_origin(hint) is typing.Annotated
        self.kind = hint.__origin__ if annotated else hint
        self.validators = hint.__metadata__ if annotated else ()
        self.store = _store(self.kind)
        self.default = getattr(described, name, self.store.default)

    @property
    def limits(self) -> WithinRange | None:
        return next((each for each in self.validators if isinstance(each, WithinRange)), None)

    def write(self, node: Any, name: str, value: Any) -> None:
        self.store.check(value)
        for validator in self.validators:
            validator.validate(value)
        self.store.write(node, name, value)


def _store(kind: Any) -> _Store:
    if kind in _SCALARS:
        return _Scalar(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _Enum(kind)
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    members = typing.get_args(kind) if union else (kind,)
    classes = [each for each in members if each is not type(None)]
    if not all(isinstance(each, type) and issubclass(each, slicer.vtkMRMLNode) for each in classes):
        raise TypeError(f"{kind}: the stand-in keeps int, float, str, bool and nodes")
    return _Union(members) if union else _Reference(kind)


class _Wrapped:
    """What `@parameterNodeWrapper` makes of a class, as far as the module uses it."""

    allParameters: dict[str, _Parameter]

    def __init__(self, node: Any) -> None:
        self.__dict__["parameterNode"] = node
        self.__dict__["_guis"] = {}
        self.__dict__["_tags"] = {}
        self.__dict__["_writing"] = False
        for name, parameter in self.allParameters.items():
            if not parameter.store.is_in(node, name):
                parameter.write(node, name, parameter.default)
            parameter.store.read(node, name)  # what cannot be read is refused now, as there

    def __getattribute__(self, name: str) -> Any:
        parameter = type(self).allParameters.get(name)
        if parameter is None:
            return super().__getattribute__(name)
        return parameter.store.read(self.parameterNode, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.allParameters:
            raise AttributeError(f"no parameter {name}")
        self.allParameters[name].write(self.parameterNode, name, value)

    def connectGui(self, ui: Any) -> int:
        bound = []
        for widget in vars(ui).values():
            name = widget.property(PARAMETER_NAME)
            if not name:
                continue
            if name not in self.allParameters:
                raise ValueError(f"{widget.objectName}: no parameter {name}")
            _prepare(widget, self.allParameters[name])
            bound.append((name, widget, self._from_widget(name, widget)))
        self._to_widgets(bound)
        for _, widget, slot in bound:
            _changed(widget).connect(slot)
        tag = len(self._tags)
        self._guis[tag] = bound
        event = vtk.vtkCommand.ModifiedEvent
        self._tags[tag] = self.parameterNode.AddObserver(event, lambda *_: self._to_widgets())
        return tag

    def disconnectGui(self, tag: int) -> None:
        for _, widget, slot in self._guis.pop(tag, []):
            _changed(widget).disconnect(slot)
        self.parameterNode.RemoveObserver(self._tags[tag])

    def _from_widget(self, name: str, widget: Any) -> Callable[..., None]:
        def slot(*_: Any) -> None:
            if not self._writing:
                setattr(self, name, _read(widget, self.allParameters[name]))

        return slot

    def _to_widgets(self, bound: list | None = None) -> None:
        if self._writing:
            return
        self.__dict__["_writing"] = True
        try:
            for group in [bound] if bound is not None else list(self._guis.values()):
                for name, widget, _ in group:
                    _write(widget, getattr(self, name))
        finally:
            self.__dict__["_writing"] = False


def parameterNodeWrapper(described: type) -> type:
    hints = typing.get_type_hints(described, include_extras=True)
    parameters = {name: _Parameter(hint, described, name) for name, hint in hints.items()}
    reserved = set(parameters) & (set(vars(_Wrapped)) | {"allParameters", "parameterNode"})
    if reserved:
        raise ValueError(f"reserved names: {sorted(reserved)}")
    return type(described.__name__, (_Wrapped,), {"allParameters": parameters})


def _prepare(widget: Any, parameter: _Parameter) -> None:
    """Give a widget the limits or the classes of its parameter; refuse one of another kind."""
    kinds: dict[type, tuple[type, ...]] = {
        QtWidgets.QCheckBox: (bool,),
        QtWidgets.QSpinBox: (int,),
        QtWidgets.QDoubleSpinBox: (int, float),
        qt_stand_ins.ctkSliderWidget: (int, float),
    }
    if isinstance(widget, qt_stand_ins.qMRMLNodeComboBox):
        if isinstance(parameter.store, _Scalar | _Enum):
            raise TypeError(f"{widget.objectName}: holds nodes, the parameter {parameter.kind}")
        widget.nodeTypes = [each().GetClassName() for each in parameter.store.classes]
        return
    if isinstance(widget, QtWidgets.QComboBox) and isinstance(parameter.store, _Enum):
        widget.clear()  # and the user's texts and greyed items with it, as there
        for member in parameter.kind:
            widget.addItem(member.label() if hasattr(member, "label") else member.name)
        return
    if parameter.kind not in kinds.get(type(widget), ()):
        raise TypeError(f"{widget.objectName}: does not hold {parameter.kind}")
    if parameter.limits is not None:
        widget.minimum, widget.maximum = parameter.limits.minimum, parameter.limits.maximum
    elif isinstance(widget, qt_stand_ins.ctkSliderWidget):
        raise TypeError(f"{widget.objectName}: a slider needs WithinRange")


def _changed(widget: Any) -> Any:
    if isinstance(widget, qt_stand_ins.qMRMLNodeComboBox):
        return widget.currentNodeChanged
    if isinstance(widget, QtWidgets.QComboBox):
        return widget.currentIndexChanged
    return widget.toggled if isinstance(widget, QtWidgets.QCheckBox) else widget.valueChanged


def _read(widget: Any, parameter: _Parameter) -> Any:
    if isinstance(widget, QtWidgets.QComboBox):
        return list(parameter.kind)[widget.currentIndex]
    if isinstance(widget, qt_stand_ins.qMRMLNodeComboBox):
        return widget.currentNode()
    return widget.checked if isinstance(widget, QtWidgets.QCheckBox) else widget.value


def _write(widget: Any, value: Any) -> None:
    if isinstance(widget, qt_stand_ins.qMRMLNodeComboBox):
        widget.setCurrentNode(value)
    elif isinstance(widget, QtWidgets.QComboBox):
        widget.currentIndex = list(type(value)).index(value)
    elif isinstance(widget, QtWidgets.QCheckBox):
        widget.checked = value
    else:
        widget.value = value

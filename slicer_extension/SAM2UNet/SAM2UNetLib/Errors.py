"""Errors of the module for the user: what was wrong, and what to do."""

from __future__ import annotations


class ModuleError(Exception):
    """Something that cannot be done as it was asked.

    Args:
        message: what was wrong, what was got.
        remedy: what to do.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


class InputError(ModuleError):
    """The chosen input cannot be segmented in the chosen way."""


class ResultError(ModuleError):
    """A result cannot be put where it was to go."""

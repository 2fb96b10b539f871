"""Segments frames: `model` opens a task's network, `engine` runs frames through it."""

"""From frames to masks: `model` opens a task's network, `engine` runs frames through it."""

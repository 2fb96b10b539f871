"""What the bundle's YAML names: data, transforms, handlers and the inferer."""

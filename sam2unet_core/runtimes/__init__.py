"""What runs the network: one interface, frames in, probability out."""

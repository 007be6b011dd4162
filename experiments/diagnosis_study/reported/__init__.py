"""Faults that people reported in public, rebuilt in loops of one's own, each with a control."""

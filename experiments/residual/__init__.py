"""Residual networks for the claims about them: networks, their settings, and what they compute."""

"""Memory layouts of convolutions compared: cases, timing, and compiled programs."""

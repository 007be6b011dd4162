"""Trajectories recorded from fastai, and their replay step by step."""

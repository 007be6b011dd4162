"""Trajectories recorded from fastai, replayed step by step."""

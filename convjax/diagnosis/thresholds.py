"""The thresholds of the diagnosis: which figures are findings, and what counts as which event.

They were set on trainings with injected faults and measured on other trainings; the README has the
figures ("What is wrong with a training").
"""

# --- time ----------------------------------------------------------------------------------------

# In fewer steps, a loss at the level of guessing or running statistics that lag behind are normal.
PATIENCE = 100

# A unit is dead that was not active for this many steps and this many watched rows.
DEAD_STEPS, DEAD_ROWS = 50, 10

# --- levels of activations -----------------------------------------------------------------------

# Values above it are active. The end of the first bin of fastai's histogram.
ACTIVE_LEVEL = 0.25

# Inputs of a non-linearity above which it is flat: tanh(2.5) is 0.99, and a sigmoid is as flat at
# twice the value.
FLAT_LEVEL = {"tanh": 2.5, "sigmoid": 5.0}

# --- events in a training ------------------------------------------------------------------------

# A spike: a loss of this many times that of guessing, in a step whose gradient is this many times
# the median of the steps before.
SPIKE_LOSS, SPIKE_GRADIENT, SPIKE_WINDOW = 3.0, 20.0, 20

# An update by half of the weights: a spike after it is due to the learning rate, not the data.
HIGH_RATIO = 0.5

# A loss of this many times that of guessing is worse than no training.
RISEN_LOSS = 1.25

# A training has begun to learn where its loss is below this share of that of guessing.
LEARNED_LOSS = 0.7

# A training whose loss has fallen by less than this share of that of guessing is slow.
SLOW_PROGRESS = 0.6

# --- limits of the figures, beyond which they are findings ---------------------------------------

INPUT_RMS = (0.1, 10.0)
LABEL_SPREAD = 1e-6
KERNEL_NORM = 1e-6
FLAT_SHARE = 0.5
RELATIVE_STD = 20.0
RELATIVE_GRADIENT = 0.03
RELATIVE_UPDATE = (0.001, 20.0)
LOST_PROGRESS = 0.25
DEAD_SHARE = 0.9
LOW_RATIO = 7e-4
EVALUATION_GAP = 0.2
STUCK_PROGRESS = 0.1

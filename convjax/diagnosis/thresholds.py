"""The thresholds of the diagnosis: which figures are findings, and what counts as which event.

They were set on trainings with injected faults and measured on other trainings; the README has the
figures ("What is wrong with a training").
"""

# --- time ----------------------------------------------------------------------------------------

# In fewer steps, a loss at the level of guessing or running statistics that lag behind are normal.
PATIENCE = 100

# A unit is dead that was not active for this many steps and this many watched rows.
DEAD_STEPS, DEAD_ROWS = 50, 10

# The first rows, over which a judgement at the start is taken: one batch may be odd.
FIRST_ROWS = 10

# The first steps, over which the growth of a gradient that is never cleared is looked at.
ACCUMULATED = 30

# Rows that a judgement over the whole training needs.
FEW_ROWS = 5

# Rows in which updates are so high that this is no passing state.
LASTING_ROWS = 3

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

# A loss of this many times that of guessing is worse than no training; of a network whose first
# updates bring it this far, gradients say nothing.
RISEN_LOSS, DESTROYED_LOSS = 1.25, 2.0

# A loss leaves labels out if it differs by less than the first share from that of all outputs at
# first, and falls below the second share of it and of its own beginning.
NEARLY_SAME_LOSS, LEFT_BEHIND = 0.2, 0.5

# A training has begun to learn where its loss is below this share of that of guessing.
LEARNED_LOSS = 0.7

# A training whose loss has fallen by less than this share of that of guessing is slow.
SLOW_PROGRESS = 0.6

# A training began late whose loss is above this share of the first after a fifth of the steps.
LATE_START = 0.9

# A loss that falls by more than this share of guessing in the second half has not settled.
STILL_FALLS = 0.02

# Updates so small that no fall of the loss can be seen.
TINY_RATIO = 7e-5

# A training that has come this far, of guessing, has recovered from what happened before; one that
# has come as far as the second share began late without harm.
RECOVERED, SOLVED = 0.8, 0.9

# A loss above that of guessing by more than this share is another matter than labels.
FAR_FROM_GUESSING = 0.5

# A gradient of less than this share of the largest is too small, however large the signals are.
TINY_GRADIENT = 0.01

# An output of less than this share of the input's size has been made small by small weights.
SMALL_SIGNAL = 0.1

# Weights of less than this share of the others', root mean square, begin at zero.
SMALL_WEIGHTS = 0.01

# A scale of channels of less than this, root mean square, begins near zero.
SMALL_SCALE = 1e-3

# An update of less than the first share of the others', for its gradient, is held back; one of more
# than the second has a higher learning rate.
SMALL_PER_GRADIENT, LARGE_PER_GRADIENT = 0.01, 3.0

# Two losses of one batch are in one mode if they differ by less than the first share, in float32,
# and in different modes by more than the second.
SAME_EVALUATION, OTHER_MODE = 1e-5, 1e-2

# A figure this close to its limit, as a share of it, might as well be on the other side.
NEAR_LIMIT = 0.2

# --- limits of the figures, beyond which they are findings ---------------------------------------

INPUT_RMS = (0.1, 10.0)
LABEL_SPREAD = 1e-6
CLASSES_OF_BATCH = 0.5
TARGET_RMS = 10.0
VERY_LARGE_TARGET = 1000.0
MOST_ROWS = 0.9
WEIGHTS_LEFT = 0.5
DROPOUT_NOISE = 3.0
SIGNAL = 0.01
DROPOUT_GAP = 0.15
ACCUMULATES = 0.85
STALE_CHANGE = 0.1
NORMALISED = 1.3
KERNEL_NORM = 1e-6
FLAT_SHARE = 0.5
RELATIVE_STD = 20.0
RELATIVE_GRADIENT = 0.03
RELATIVE_UPDATE = (0.001, 20.0)
LOST_PROGRESS = 0.25
LOST_AGAIN = 0.5
DEAD_SHARE = 0.9
LOW_RATIO = 7e-4
LATE_FALL = 0.45
EVALUATION_GAP = 0.2
STUCK_PROGRESS = 0.1

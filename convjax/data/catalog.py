"""The names of the data sets and of their classes."""

DIGITS = tuple("0123456789")

# In the order of the labels, as their authors publish them.
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "mnist5k": DIGITS,
    "mnist": DIGITS,
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "cifar10": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
}

DATASET_NAMES = tuple(CLASS_NAMES)

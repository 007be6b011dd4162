"""The names of the data sets and of their classes."""

from string import ascii_lowercase, ascii_uppercase, digits

DIGITS = tuple(digits)
_MERGED = tuple(digits + ascii_uppercase + "abdefghnqrt")  # where small letters look like large

_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

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
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "qmnist": DIGITS,
    "emnist_letters": tuple(ascii_uppercase),
    "emnist_digits": DIGITS,
    "emnist_balanced": _MERGED,
    "emnist_bymerge": _MERGED,
    "emnist_byclass": tuple(digits + ascii_uppercase + ascii_lowercase),
    "emnist_mnist": DIGITS,
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
    "cifar100": tuple(_CIFAR100.split()),
}

DATASET_NAMES = tuple(CLASS_NAMES)

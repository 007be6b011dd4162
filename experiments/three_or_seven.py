"""three-or-seven: a small convolutional network tells threes from sevens.

conv 1→4→8→16→32→2, 3×3, stride 2, 6,722 parameters; pixels divided by 255; batch 64; one-cycle,
2 epochs, lr_max 0.01. Published (train loss / valid loss / accuracy): 0.0727 / 0.0451 / 0.9902
after the first epoch, 0.0226 / 0.0308 / 0.9902 after the second.

Rules: on mnist both accuracies could be one of ours (within the spread of at least five seeds); on
mnist5k, with 800 images to learn from instead of 12,396, it learns: accuracy of at least 0.95.

Command: python -m experiments run three-or-seven
"""

from convjax import plots
from convjax.summary import summary
from experiments.lab import THREE_OR_SEVEN, Lab
from experiments.ledger import Claim, Measured, NotMeasuredError, every, within_spread


def three_or_seven(lab: Lab) -> Measured:
    if not lab.has_threes_and_sevens():
        raise NotMeasuredError("these data have no classes 3 and 7")
    trainings = lab.train(THREE_OR_SEVEN)
    lab.picture("three-or-seven", plots.plot_loss(trainings[0].record, trainings[0].metrics))
    shape = (1, *lab.dataset.train.images.shape[1:])
    return {
        "parameters": [summary(trainings[0].model, shape).parameters],
        "accuracy_1": lab.metric(THREE_OR_SEVEN, "accuracy", epoch=0),
        "accuracy_2": lab.metric(THREE_OR_SEVEN, "accuracy", epoch=1),
        "train_loss_1": lab.metric(THREE_OR_SEVEN, "train_loss", epoch=0),
        "train_loss_2": lab.metric(THREE_OR_SEVEN, "train_loss", epoch=1),
        "valid_loss_1": lab.metric(THREE_OR_SEVEN, "valid_loss", epoch=0),
        "valid_loss_2": lab.metric(THREE_OR_SEVEN, "valid_loss", epoch=1),
    }


CLAIMS = (
    Claim(
        id="three-or-seven",
        statement="a network of four convolution layers and a fifth tells threes from sevens",
        published={
            "parameters": 6722,
            "accuracy_1": 0.9902,
            "accuracy_2": 0.9902,
            "train_loss_1": 0.0727,
            "valid_loss_1": 0.0451,
            "train_loss_2": 0.0226,
            "valid_loss_2": 0.0308,
        },
        measure=three_or_seven,
        rules={
            "mnist": within_spread(
                [("accuracy_1", 0.9902), ("accuracy_2", 0.9902)], test_size=2038
            ),
            "mnist5k": every("accuracy_2", 0.95),
        },
    ),
)

if __name__ == "__main__":
    from experiments.cli import script

    script(__file__)

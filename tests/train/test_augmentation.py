"""Augmentations by hand, and trainings with them: resumed, streamed, split and swept."""

from math import gamma

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.data import Stream
from convjax.nn.models import LinearNet
from convjax.optim.optimizers import adam, sgd
from convjax.stats.watch import Watch
from convjax.train import device_data, scan_loop
from convjax.train._fit import TrainingStopped, fit
from convjax.train._sweep import sweep
from convjax.train.augmentation import (
    AugmentedBatch,
    Augmenter,
    Cutout,
    Mixup,
    RandomBrightness,
    RandomContrast,
    RandomFlip,
    RandomShift,
    step_columns,
    step_key,
)
from convjax.train.plan import Plan
from convjax.train.trainer import Trainer
from tests.trainings import (
    CLASSES,
    EXAMPLES,
    MEAN,
    STD,
    STEPS,
    Normed,
    batches,
    conv_net,
    pixels,
    split,
    table,
)

KEYS = jax.random.split(jax.random.key(0), 200)


def noise(key, image):
    """A function of one's own."""
    return image + 0.1 * jax.random.normal(key, image.shape, image.dtype)


OWN = (noise, Cutout(2))


def image(height=6, width=5, channels=2):
    values = np.random.default_rng(0).uniform(0.1, 0.9, (height, width, channels))
    return jnp.asarray(values, jnp.float32)


def drawn(function, picture):
    return np.asarray(jax.vmap(function, (0, None))(KEYS, picture))


# --- single functions ----------------------------------------------------------------------------


def test_cutout_covers_a_square_around_any_pixel():
    picture = image()
    found = drawn(Cutout(3, fill=1.0), picture)
    covered = (found == 1).all(-1)
    np.testing.assert_array_equal(found[~covered], np.broadcast_to(picture, found.shape)[~covered])
    wanted = set()
    for row in range(6):
        for column in range(5):
            mask = np.zeros((6, 5), bool)
            mask[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
            wanted.add(mask.tobytes())
    # 200 draws of 30 squares: each is missed with a probability of (29/30)^200, about 0.001.
    assert {mask.tobytes() for mask in covered} == wanted


def test_mixup_draws_shares_and_a_permutation():
    share, order = map(np.asarray, Mixup(0.4).draw(jax.random.key(1), 1000))
    assert sorted(order.tolist()) == list(range(1000))
    assert share.dtype == np.float32
    assert ((share >= 0.5) & (share <= 1)).all()
    # E|2s − 1| of Beta(a, a) is 2/(4^a·a·B(a, a)), so the mean share is (1 + that)/2.
    a = 0.4
    wanted = (1 + 2 / (4**a * a * gamma(a) ** 2 / gamma(2 * a))) / 2
    assert share.mean() == pytest.approx(wanted, abs=4 * float(share.std()) / 1000**0.5)


def test_augmenter_mixes_images_and_names_both_labels():
    images, labels = jnp.stack([image() * s for s in (0.1, 0.5, 1.0)]), jnp.array([4, 5, 6])
    batch = Augmenter([Mixup(1.0)])(jax.random.key(3), images, labels)
    mixed, share = np.asarray(batch.images), np.asarray(batch.share)[:, None, None, None]
    partner = np.asarray(batch.mixed_labels) - 4
    np.testing.assert_allclose(
        mixed, share * images + (1 - share) * np.asarray(images)[partner], rtol=1e-6
    )
    assert batch.labels.tolist() == [4, 5, 6]
    assert sorted(partner.tolist()) == [0, 1, 2]


def test_augmenter_gives_each_example_and_function_its_own_draws():
    ones = jnp.ones((4, 3, 3, 1))

    def number(key, image):
        return image * 0 + jax.random.uniform(key)

    def again(key, image):
        return image - jax.random.uniform(key)

    found = Augmenter([number, again])(jax.random.key(0), ones, jnp.zeros(4, int)).images
    assert len(np.unique(np.asarray(found))) == 4
    assert not (np.asarray(found) == 0).any()


def test_augmenter_is_the_same_for_parts_of_a_batch():
    """Each example's draws depend on its place in the batch alone."""
    images = jnp.stack([image()] * 6)
    whole = Augmenter([noise])(jax.random.key(0), images, jnp.arange(6)).images
    few = Augmenter([noise])(jax.random.key(0), images[:4], jnp.arange(4)).images
    np.testing.assert_array_equal(few, whole[:4])


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**20), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_step_key_depends_on_seed_and_step(seed, first, offset):
    columns = step_columns(seed, first, offset + 1)
    alone = step_columns(seed, first + offset, 1)
    keys = [step_key(c["seed"][-1], c["step"][-1]) for c in (columns, alone)]
    assert jax.random.key_data(keys[0]).tolist() == jax.random.key_data(keys[1]).tolist()
    other = step_key(np.uint32(seed ^ 1), columns["step"][-1])
    assert jax.random.key_data(other).tolist() != jax.random.key_data(keys[0]).tolist()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Cutout(0), ValueError, "size must be at least 1, got 0"),
        (lambda: Cutout(2, 2), ValueError, "fill must be from 0 to 1, got 2"),
        (lambda: Mixup(0), ValueError, "alpha must be positive and finite, got 0"),
        (lambda: RandomFlip(1.5), ValueError, "probability must be from 0 to 1, got 1.5"),
        (lambda: RandomShift(2, "white"), ValueError, "fill must be one of black, .*'white'"),
        (lambda: RandomShift(2.0), TypeError, "pixels must be a whole number"),
        (lambda: RandomBrightness(-1), ValueError, "most must be from 0 to 1, got -1"),
        (lambda: RandomContrast(2, 1), ValueError, "upper must be from 2 to 100, got 1"),
        (lambda: Augmenter([]), ValueError, "augment must hold at least one function, got none"),
        (lambda: Augmenter(noise), TypeError, "augment must be Sequence, got function"),
        (lambda: Augmenter([Cutout]), TypeError, "functions of a key and an image, got type"),
        (lambda: Augmenter([Mixup(), noise]), ValueError, "have Mixup as its last, .* number 1 of"),
        (lambda: step_columns(2**32, 0, 1), ValueError, "seed must be below 4294967296"),
        (lambda: step_columns(0, 2**31, 1), ValueError, "first_step must be below 2147483648"),
    ],
)
def test_augmentations_reject(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_augmenter_rejects_another_shape():
    cropped = Augmenter([lambda key, image: image[1:]])
    with pytest.raises(ValueError, match=r"keep the shape of images \(6, 5, 2\), got \(5, 5, 2\)"):
        cropped(jax.random.key(0), image()[None], jnp.zeros(1, int))


# --- with PIX ------------------------------------------------------------------------------------


@pytest.fixture
def pix():
    return pytest.importorskip("dm_pix", reason="PIX is not installed")


def test_random_flip(pix):
    picture = image()
    found = drawn(RandomFlip(0.3), picture)
    flipped = (found == picture[:, ::-1]).all((1, 2, 3))
    np.testing.assert_array_equal(found[~flipped], np.broadcast_to(picture, found.shape)[~flipped])
    # 200 draws; four standard deviations.
    assert abs(flipped.sum() - 0.3 * 200) < 4 * (200 * 0.3 * 0.7) ** 0.5
    assert not (drawn(RandomFlip(0), picture) != picture).any()


@pytest.mark.parametrize(
    ("fill", "mode"), [("black", "constant"), ("edge", "edge"), ("reflect", "reflect")]
)
def test_random_shift_shows_every_window(pix, fill, mode):
    picture = image()
    found = {each.tobytes() for each in drawn(RandomShift(1, fill), picture)}
    padded = np.pad(np.asarray(picture), ((1, 1), (1, 1), (0, 0)), mode=mode)
    wanted = {padded[r : r + 6, c : c + 5].tobytes() for r in range(3) for c in range(3)}
    assert found == wanted


def test_random_shift_rejects_a_reflection_beyond_the_image(pix):
    with pytest.raises(ValueError, match=r"below the height and width .*, got 5 for 6×5"):
        RandomShift(5, "reflect")(KEYS[0], image())


def test_random_brightness_and_contrast(pix):
    picture = image()
    found = drawn(RandomBrightness(0.1), picture) - picture
    assert (np.ptp(found, (1, 2, 3)) < 1e-6).all()  # one number for each image
    assert (np.abs(found) <= 0.1 + 1e-6).all()
    assert np.ptp(found) > 0.15
    changed = drawn(RandomContrast(0.5, 0.75), picture)
    mean = np.asarray(picture).mean((0, 1))
    factor = (changed - mean) / (np.asarray(picture) - mean)
    assert (np.ptp(factor, (1, 2, 3)) < 1e-3).all()
    assert 0.5 - 1e-3 < factor.min() < 0.55 < 0.7 < factor.max() < 0.75 + 1e-3
    for function in (RandomBrightness(1.0), RandomContrast(1, 100)):
        extreme = drawn(function, picture)
        assert (extreme.min(), extreme.max()) == (0, 1)


def test_augmentations_say_how_to_install_pix(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dm_pix", None)
    with pytest.raises(ImportError, match=r'needs PIX, .*pip install "convjax\[augment\]"'):
        RandomFlip()(KEYS[0], image())


@pytest.mark.parametrize("devices", [None, 2])
def test_trainer_with_every_augmentation(pix, devices):
    everything = (
        RandomFlip(), RandomShift(1), RandomBrightness(), RandomContrast(), *OWN, Mixup(),
    )  # fmt: skip
    trainer = Trainer(
        conv_net(), adam(), augment=everything, devices=devices and jax.devices()[:devices]
    )
    order = batches()[:, :4]
    _, record = trainer.run(trainer.start(conv_net()), split(), order, table())
    assert np.isfinite(record.loss).all()


# --- trainings -----------------------------------------------------------------------------------

pytestmark = pytest.mark.usefixtures("small_chunks")


def program(trainer, draws):
    rates = {name: np.zeros(4, np.float32) for name in ("learning_rate", "momentum")}
    given = trainer.start(conv_net()), split(), batches(4), rates | draws, np.int32(4)
    return str(jax.make_jaxpr(trainer.chunks.take)(*given))


def test_trainer_without_augmentation_draws_nothing():
    assert "random" not in program(Trainer(conv_net(), adam()), {})
    augmented = program(Trainer(conv_net(), adam(), augment=OWN), step_columns(0, 0, 4))
    assert "random" in augmented


def test_a_step_with_augmentations_needs_a_key():
    trainer = Trainer(conv_net(), adam(), augment=[noise, Cutout(2)])
    assert repr(trainer).endswith("step, augmenting by noise, Cutout)")
    state = trainer.start(conv_net())
    with pytest.raises(TypeError, match=r"key must be given .* got None\. .*step_key"):
        trainer.step(state, pixels()[:3], np.arange(3), 0.1, 0.9)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_augmented_steps_lower_for_every_platform(platform):
    trainer = Trainer(conv_net(), adam(), augment=(*OWN, Mixup()), watch=None)
    rates = {name: np.zeros(4, np.float32) for name in ("learning_rate", "momentum")}
    given = split(), batches(4), rates | step_columns(0, 0, 4), np.int32(4)
    lowered = (
        jax.jit(trainer.chunks.take)
        .trace(trainer.start(conv_net()), *given)
        .lower(lowering_platforms=(platform,))
    )
    assert "stablehlo" in lowered.as_text()


def unchanged(key, image):
    return image


def test_trainer_with_an_identity_is_the_trainer_without():
    found = []
    for augment in (None, [unchanged]):
        trainer = Trainer(conv_net(), adam(), mean=MEAN, std=STD, augment=augment)
        found.append(trainer.run(trainer.start(conv_net()), split(), batches(), table())[1])
    np.testing.assert_allclose(found[0].loss, found[1].loss, rtol=1e-5)


def reference_loss(trainer, model, step, order, seed=0):
    """The loss of a step from the batch that `augmented` shows, in NumPy."""
    labels = np.asarray(split().labels)[order[step]]
    batch = trainer.augmented(pixels()[order[step]], labels, step=step, seed=seed)
    x = (np.asarray(batch.images, np.float64) - MEAN) / STD
    logits = np.asarray(model(jnp.asarray(x, jnp.float32)), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    losses = -log_p[rows, batch.labels]
    if batch.share is not None:
        losses = batch.share * losses - (1 - batch.share) * log_p[rows, batch.mixed_labels]
    return losses.mean()


@pytest.mark.parametrize("augment", [OWN, (*OWN, Mixup(0.5)), (Mixup(1.0),)])
def test_trainer_trains_on_the_batch_that_it_shows(augment):
    from flax import nnx

    model = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
    trainer = Trainer(model, sgd(), mean=MEAN, std=STD, augment=augment, watch=None)
    order, still = batches(), {"learning_rate": np.zeros(STEPS), "momentum": np.zeros(STEPS)}
    for seed in (0, 7):
        _, record = trainer.run(trainer.start(model), split(), order, still, seed=seed)
        wanted = [reference_loss(trainer, model, i, order, seed) for i in range(STEPS)]
        np.testing.assert_allclose(record.loss, wanted, rtol=1e-5)  # float32 of order 1
    plain = Trainer(model, sgd(), mean=MEAN, std=STD, watch=None)
    _, without = plain.run(plain.start(model), split(), order, still)
    assert np.abs(without.loss - record.loss).min() > 1e-4


def test_augmented_shows_the_pixels():
    trainer = Trainer(conv_net(), adam())
    batch = trainer.augmented(pixels()[:3], np.array([0, 1, 2]))
    assert isinstance(batch, AugmentedBatch)
    np.testing.assert_array_equal(batch.pixels, pixels()[:3])
    assert batch.share is None
    cut = Trainer(conv_net(), adam(), augment=[Cutout(2)])
    shown = [cut.augmented(pixels()[:3], np.arange(3), step=i, seed=s).pixels for i, s in
             ((0, 0), (0, 0), (1, 0), (0, 1))]  # fmt: skip
    np.testing.assert_array_equal(shown[0], shown[1])
    assert (shown[0] != shown[2]).any()
    assert (shown[0] != shown[3]).any()
    with pytest.raises(TypeError, match=r"batch\.images must be uint8"):
        trainer.augmented(pixels()[:3].astype(np.uint16), np.arange(3))
    with pytest.raises(ValueError, match="first_step must be at least 0, got -1"):
        trainer.augmented(pixels()[:3], np.arange(3), step=-1)


def test_evaluation_is_not_augmented():
    """Not of a split, not of the same batch, and not of images to predict."""
    black = [lambda key, image: image * 0]
    results = []
    for augment in (None, black):
        trainer = Trainer(conv_net(), adam(), watch=Watch(evaluation=True), augment=augment)
        start = trainer.start(conv_net())
        scores = trainer.evaluate(start, split())
        logits = trainer.predict(start, pixels()[:4])
        still = {"learning_rate": np.zeros(1), "momentum": np.zeros(1)}
        _, record = trainer.run(start, split(), batches(1), still)
        results.append((scores, np.asarray(logits), record))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    # The training pass saw black images: it moves the running statistics, which scores use.
    assert results[1][2].loss[0] == pytest.approx(np.log(CLASSES), rel=0.5)
    assert results[0][2].loss[0] != results[1][2].loss[0]
    one, other = (record.eval_loss[0] for _, _, record in results)
    assert one != other  # of other running statistics
    assert np.isfinite(other)


def same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])


class Trained:
    """A training with batch norm, watched every second step."""

    def __init__(self, devices=None):
        chosen = devices and jax.devices()[:devices]
        self.trainer = Trainer(
            conv_net(), adam(), mean=MEAN, std=STD, watch=Watch(every=2), augment=(*OWN, Mixup()),
            devices=chosen,
        )  # fmt: skip
        self.order = np.random.default_rng(0).integers(0, EXAMPLES, (10, 4))

    def run(self, data, *parts, seed=3):
        state, losses, first = self.trainer.start(conv_net()), [], 0
        for steps in parts:
            part = slice(first, first + steps)
            rates = {name: column[part] for name, column in table(10).items()}
            state, record = self.trainer.run(
                state, data, self.order[part], rates, seed=seed, first_step=first
            )
            losses.append(record.loss)
            first += steps
        return jax.tree.map(np.array, state), np.concatenate(losses)


@pytest.fixture(scope="module")
def trained(small_chunks):
    return Trained()


@pytest.fixture(scope="module")
def whole(trained):
    return trained.run(split(), 10)


@pytest.mark.parametrize("parts", [(4, 6), (2, 2, 6)])
def test_trainer_in_parts_equals_the_whole_bit_for_bit(trained, whole, parts):
    same(trained.run(split(), *parts), whole)


@pytest.mark.parametrize("length", [2])
def test_trainer_in_other_chunks_equals_the_whole_bit_for_bit(trained, whole, length, monkeypatch):
    monkeypatch.setattr(scan_loop, "CHUNK_STEPS", length)
    same(trained.run(split(), 10), whole)


def test_trainer_of_a_stream_equals_the_whole_bit_for_bit(trained, whole, monkeypatch):
    monkeypatch.setattr(device_data, "CHUNK_BYTES", 2 * 4 * 4 * 4 * 2)
    stream = Stream(pixels(), np.asarray(split().labels))
    same(trained.run(stream, 10), whole)


def test_trainer_with_another_seed_differs(trained, whole):
    assert (trained.run(split(), 10, seed=4)[1] != whole[1]).all()


@pytest.mark.parametrize(
    ("devices", "streamed"),
    [(2, False), (2, True), pytest.param(1, False, marks=pytest.mark.slow)],
)
def test_trainer_on_devices_equals_that_on_one(whole, devices, streamed):
    data = Stream(pixels(), np.asarray(split().labels)) if streamed else split()
    _, losses = Trained(devices=devices).run(data, 10)
    # Ten steps in float32, whose first gradients Adam scales to 1.
    np.testing.assert_allclose(losses, whole[1], rtol=1e-3)


class Store:
    """Keeps the newest checkpoint in memory."""

    resumed, seconds, checkpoint = False, 0.0, None

    def check(self):
        pass

    def write(self, metrics, record):
        pass

    def restore(self, like):
        return self.checkpoint

    def save(self, checkpoint, *, score):
        state = jax.tree.map(np.array, checkpoint.state)
        self.checkpoint = checkpoint._replace(state=jax.tree.map(jnp.asarray, state))

    def wait(self):
        pass


def test_fit_resumed_equals_fit_bit_for_bit(trained):
    def plan(seed):
        epochs = np.split(trained.order, 2)
        return Plan(2, lambda epoch: epochs[epoch], table(10), piece=2, seed=seed)

    whole = fit(trained.trainer, conv_net(), split(), split(), plan(5))
    store, calls = Store(), iter([False, True])
    with pytest.raises(TrainingStopped):
        fit(
            trained.trainer, conv_net(), split(), split(), plan(5), keeping=store,
            stop=lambda: next(calls),
        )  # fmt: skip
    resumed = fit(trained.trainer, conv_net(), split(), split(), plan(5), keeping=store)
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)
    np.testing.assert_array_equal(resumed.record.loss, whole.record.loss)
    with pytest.raises(ValueError, match=r"another plan, with .*seed"):
        fit(trained.trainer, conv_net(), split(), split(), plan(6), keeping=store)


def test_plan_names_its_seed_only_where_there_is_one():
    plans = [Plan(1, lambda epoch: batches(), table(), seed=seed) for seed in (0, 2)]
    assert "seed" not in plans[0].config  # as in checkpoints of earlier versions
    assert plans[1].config["seed"] == 2
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        Plan(1, lambda epoch: batches(), table(), seed=-1)


@pytest.mark.parametrize("at_once", [1, 4])
def test_sweep_augments_as_the_trainer_does(at_once):
    with jax.enable_x64(True):
        trainer = Trainer(Normed(), adam(), mean=MEAN, std=STD, watch=None, augment=(*OWN, Mixup()))
        orders, tables = [batches(seed=1)] * 2, [table(lr_max=rate) for rate in (0.01, 0.05)]
        found = sweep(
            trainer, [Normed()] * 2, split(), orders, tables, test=split(), at_once=at_once
        )
        for seed in range(2):
            for setting in range(2):
                _, record = trainer.run(
                    trainer.start(Normed()), split(), orders[seed], tables[setting], seed=seed
                )
                np.testing.assert_allclose(found.loss[seed, setting], record.loss, rtol=1e-5)
        assert (found.loss[0] != found.loss[1]).all()
        equal = sweep(
            trainer, [Normed()] * 2, split(), orders, tables, test=split(), at_once=at_once,
            seeds=[6, 6],
        )  # fmt: skip
        np.testing.assert_allclose(equal.loss[0], equal.loss[1], rtol=1e-9)
        with pytest.raises(ValueError, match="seeds must be one for each of the 2 models, got 1"):
            sweep(trainer, [Normed()] * 2, split(), orders, tables, test=split(), seeds=[1])


def test_sweep_without_augmentation_takes_no_draws():
    trainer = Trainer(conv_net(), adam(), watch=None)
    found = sweep(trainer, [conv_net()], split(), [batches()], [table()], test=split())
    _, record = trainer.run(trainer.start(conv_net()), split(), batches(), table())
    np.testing.assert_allclose(found.loss[0, 0], record.loss, rtol=1e-5)


def test_mixup_of_vectors_and_functions_that_cut_off():
    """Images of floating point have no scale at whose ends brightness could be cut off."""
    model = LinearNet((6, 3), rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    labels = np.arange(5, dtype=np.int32) % 3
    batch = Trainer(model, adam(), augment=[Mixup()]).augmented(x, labels)
    assert batch.images.shape == x.shape
    share = batch.share[:, None]
    for row in range(5):
        partners = share[row] * x[row] + (1 - share[row]) * x
        assert np.isclose(partners, batch.images[row], atol=1e-5).all(1).any()
    with pytest.raises(ValueError, match="augment must not hold RandomBrightness for images of fl"):
        Trainer(model, adam(), augment=[RandomBrightness()]).augmented(x, labels)
    with pytest.raises(ValueError, match="for data that are no images"):
        Trainer(model, adam(), augment=[lambda key, image: image]).augmented(x, labels)


def test_labels_of_pixels_would_not_move_with_the_images():
    model = LinearNet((16, 3), rngs=nnx.Rngs(0))
    trainer = Trainer(model, adam(), augment=[RandomShift(1)])
    with pytest.raises(ValueError, match=r"labels of pixels, got the shape \(2, 4, 4\)"):
        trainer.augmented(np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 4, 4), np.int32))

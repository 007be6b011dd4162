"""The data sets of a session, each made once: in the form in which a setting takes them."""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import NamedTuple

from convjax.chapter.setting import Setting
from convjax.data import Dataset, load, normalization
from convjax.train.device_data import Images


class DeviceDataset(NamedTuple):
    """A data set, and its images on the device."""

    dataset: Dataset
    train: Images
    test: Images


class SettingDatasets:
    """The images of all classes in the form that a setting takes, or those of threes and sevens.

    Args:
      source, data_dir: as for `convjax.data.load`.
      whole: returns the whole data set.
    """

    def __init__(self, source: str, data_dir: Path | None, whole: Callable[[], Dataset]):
        self._source, self._data_dir, self._whole = source, data_dir, whole
        self._datasets: dict[Hashable, Dataset] = {}
        self._on_device: dict[Hashable, DeviceDataset] = {}
        self._normalizations: dict[Hashable, tuple[list[float], list[float]]] = {}

    def dataset(self, setting: Setting) -> Dataset:
        """Returns the data set of a setting."""
        kind = _kind(setting)
        if kind not in self._datasets:
            self._datasets[kind] = self._dataset(setting)
        return self._datasets[kind]

    def on_device(self, setting: Setting) -> DeviceDataset:
        """Returns the data set of a setting and its images on the device."""
        kind = _kind(setting)
        if kind not in self._on_device:
            dataset = self.dataset(setting)
            images = Images.put(dataset.train), Images.put(dataset.test)
            self._on_device[kind] = DeviceDataset(dataset, *images)
        return self._on_device[kind]

    def normalization(self, setting: Setting) -> tuple[list[float], list[float]]:
        """Returns mean and std per channel, on the scale p/255.

        The chapter normalises the ten digits; the threes and sevens are only divided by 255.
        """
        if setting.threes_and_sevens:
            return [0.0], [1.0]
        kind = _kind(setting)
        if kind not in self._normalizations:
            mean, std = normalization(self.dataset(setting).train.images)
            self._normalizations[kind] = mean.tolist(), std.tolist()
        return self._normalizations[kind]

    def _dataset(self, setting: Setting) -> Dataset:
        if setting.threes_and_sevens:
            return load(self._source, data_dir=self._data_dir, classes=("3", "7"))
        return setting.images_of(self._whole())


def _kind(setting: Setting) -> Hashable:
    return setting.threes_and_sevens, setting.images_kind

"""Records as different settings of Watch leave them, and their comparison."""

import dataclasses

import numpy as np

from tests.helpers import make_record, without_histograms, without_layers

RECORD = make_record(steps=7, layers=3)
KINDS = {
    "all": RECORD,
    "every 2": make_record(steps=7, layers=3, every=2),
    "every 3": make_record(steps=7, layers=3, every=3),
    "every 9": make_record(steps=7, layers=3, every=9),  # only the first step is watched
    "no histograms": without_histograms(make_record(steps=7, layers=3, every=2)),
    "no layers": without_layers(RECORD),
    "several sizes": dataclasses.replace(RECORD, counted=RECORD.values + np.arange(7)[:, None]),
}


def assert_equal(found, expected):
    assert found.layers == expected.layers
    _assert_same_fields(found, expected)
    if expected.parameters is None:
        assert found.parameters is None
    else:
        _assert_same_fields(found.parameters, expected.parameters)


def _assert_same_fields(found, expected):
    for field in dataclasses.fields(expected):
        if field.name != "parameters":
            actual, wanted = getattr(found, field.name), getattr(expected, field.name)
            if isinstance(wanted, dict):
                np.testing.assert_equal(actual, wanted, err_msg=field.name)
                continue
            np.testing.assert_array_equal(actual, wanted, err_msg=field.name, strict=True)

"""The benchmark's stand-in for OpenCV is OpenCV, bit by bit."""

import importlib.util
import sys
from importlib.machinery import BuiltinImporter

import cv2
import numpy as np
import pytest

from benchmarks import plain_opencv
from tests.unit.test_watermark import PICTURES, drawn


@pytest.mark.parametrize("colours", ["COLOR_RGB2YUV", "COLOR_YUV2RGB"])
def test_colours_are_converted_as_opencv_does_it(colours):
    random = np.random.default_rng(1)
    code = getattr(plain_opencv, colours)
    assert code == getattr(cv2, colours)
    pictures = [drawn(picture, random, *size) for picture in PICTURES for size in ((64, 70), (301, 219))]
    pictures.append(random.integers(0, 256, (256, 256, 3), np.uint8))
    for pixels in pictures:
        assert np.array_equal(plain_opencv.cvtColor(pixels, code), cv2.cvtColor(pixels, code))


def test_channels_and_sums_are_as_opencv_has_them():
    pixels = np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)
    for ours, theirs in zip(plain_opencv.split(pixels), cv2.split(pixels), strict=True):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(plain_opencv.merge(plain_opencv.split(pixels)), pixels)
    kinds = plain_opencv.REDUCE_SUM, plain_opencv.CV_32S
    assert kinds == (cv2.REDUCE_SUM, cv2.CV_32S)
    found = plain_opencv.reduce(pixels[:, :, 0], 1, *kinds)
    assert np.array_equal(found, cv2.reduce(pixels[:, :, 0], 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S))


def test_libraries_that_ask_whether_there_is_an_opencv_are_answered(monkeypatch):
    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.setattr(sys, "meta_path", [BuiltinImporter])  # nothing is found that is not there yet
    plain_opencv.stand_in()
    assert importlib.util.find_spec("cv2").name == "cv2"  # as transformers asks; it is an error for a module without

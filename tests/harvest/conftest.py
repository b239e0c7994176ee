"""What the tests of bounded spools share: the model, its text, and bytes of six runs."""

import pytest
from bounded_cases import bytes_of_six, text

from diascope.models.toy import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def sequences(model):
    return text(model)


@pytest.fixture(scope="module")
def bound(model, sequences):
    return bytes_of_six(model, sequences)

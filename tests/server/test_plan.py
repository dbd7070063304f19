"""A study is found by its path or its name."""

import pytest

from cardionets_core.errors import ConfigError
from server.study_files import find_study


def test_an_unknown_study_lists_the_shipped_ones():
    with pytest.raises(ConfigError, match="demo"):
        find_study("nothing-like-it")

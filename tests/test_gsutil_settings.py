"""What the configuration of gsutil says about retries and proxies, wherever it is set."""

import pytest

from models.storage.gsutil_settings import GsutilSettings


def read(tmp_path, text, **variables):
    (tmp_path / "boto").write_text(text)
    return GsutilSettings.read({"BOTO_CONFIG": str(tmp_path / "boto")} | variables)


def test_nothing_is_set(tmp_path):
    assert read(tmp_path, "[GSUtil]\n") == GsutilSettings.read({}) == GsutilSettings()


def test_retries_of_the_configuration_are_its_own(tmp_path):
    assert read(tmp_path, "[Boto]\nnum_retries = 2\n[Boto]\nproxy = a%b\n").has_retries


def test_the_proxy_of_the_configuration_comes_before_that_of_the_environment(tmp_path):
    text = "[Boto]\nproxy = proxy.example\nproxy_port = 80\nproxy_pass = secret\n"
    assert read(tmp_path, text, https_proxy="http://other:1").proxy == "proxy.example:80 (BOTO_CONFIG)"
    path = f"/nonexistent:{tmp_path / 'boto'}"
    assert GsutilSettings.read({"BOTO_PATH": path}).proxy == "proxy.example:80 (BOTO_PATH)"


@pytest.mark.parametrize("value", ["http://someone:secret@proxy.example:80", "proxy.example:80"])
def test_the_proxy_of_the_environment_is_shown_without_credentials(value):
    assert GsutilSettings.read({"https_proxy": value}).proxy == "proxy.example:80 (https_proxy)"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"no section\n"])
def test_a_file_that_is_no_configuration_says_nothing(content, tmp_path):
    (tmp_path / "boto").write_bytes(content)
    assert GsutilSettings.read({"BOTO_CONFIG": str(tmp_path / "boto")}) == GsutilSettings()

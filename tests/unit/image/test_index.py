"""Where packages come from, as this machine is configured."""

from __future__ import annotations

import configparser
from pathlib import Path

from orchestrator.image.index import PackageIndex, read


def home(tmp_path: Path, text: str) -> dict[str, str]:
    folder = tmp_path / ".config" / "pip"
    folder.mkdir(parents=True)
    (folder / "pip.conf").write_text(text)
    return {"HOME": str(tmp_path)}


def test_pip_s_own_files_are_read(tmp_path):
    environ = home(
        tmp_path, "[global]\nindex-url = https://u:p@x.example/simple\n[install]\nfind_links =\n  /a\n  /b\n"
    )
    found = read(environ)
    assert found.index == "https://u:p@x.example/simple"
    assert found.find_links == ("/a", "/b")


def test_a_variable_wins_over_a_file(tmp_path):
    environ = home(tmp_path, "[global]\nindex-url = https://file.example/simple\n")
    assert read(environ | {"PIP_INDEX_URL": "https://variable.example/simple"}).index.startswith("https://variable")


def test_a_named_file_takes_the_place_of_the_user_s(tmp_path):
    environ = home(tmp_path, "[global]\nindex-url = https://user.example/simple\n")
    (tmp_path / "named.conf").write_text("[global]\nretries = 7\n")
    found = read(environ | {"PIP_CONFIG_FILE": str(tmp_path / "named.conf")})
    assert found.index == ""
    assert ("retries", "7") in found.options


def test_uv_s_variables_count_where_pip_says_nothing(tmp_path):
    found = read(
        {
            "HOME": str(tmp_path),
            "PIP_CONFIG_FILE": "/dev/null",
            "UV_DEFAULT_INDEX": "https://uv.example/simple",
            "UV_FIND_LINKS": "/a,/b",
        }
    )
    assert (found.index, found.find_links) == ("https://uv.example/simple", ("/a", "/b"))


def test_a_certificate_is_what_any_of_the_usual_variables_names(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("PEM")
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    assert read(environ | {"SSL_CERT_FILE": str(bundle)}).certificate == str(bundle)
    assert read(environ | {"SSL_CERT_FILE": str(tmp_path / "gone")}).certificate == ""


def test_an_index_s_parent_is_offered_because_its_pages_link_beside_it(tmp_path):
    (tmp_path / "mirror" / "simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    index = PackageIndex(
        extra=(f"file://{tmp_path}/mirror/simple",), find_links=(f"{tmp_path}/wheels", f"{tmp_path}/gone")
    )
    assert index.folders() == (f"{tmp_path}/wheels", f"{tmp_path}/mirror")


def test_folders_are_replaced_by_where_a_build_finds_them():
    index = PackageIndex(
        index="https://x.example/simple", extra=("file:///m/simple/",), find_links=("/w", "https://y.example")
    )
    moved = index.moved({"/m": "http://h/0", "/w": "http://h/1"})
    assert moved.index == "https://x.example/simple"
    assert moved.extra == ("http://h/0/simple/",)
    assert moved.find_links == ("http://h/1/", "https://y.example")


def test_pip_can_read_what_is_written_for_it():
    parser = configparser.RawConfigParser()
    parser.read_string(
        PackageIndex(
            index="https://x/%20simple", extra=("https://a", "https://b"), options=(("retries", "1"),)
        ).pip_conf()
    )
    assert parser["global"]["index-url"] == "https://x/%20simple"
    assert parser["global"]["extra-index-url"].split() == ["https://a", "https://b"]
    assert parser["global"]["retries"] == "1"

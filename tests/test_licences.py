"""The page of licences names each package of the lock, as its metadata do."""

import importlib.metadata

import pytest

from msfser import licences


def test_each_package_of_the_lock_has_its_licence():
    page = licences.rows(licences.PAGE.read_text(encoding="utf-8"))
    assert list(page) == licences.packages(), "run: python licences.py"
    for package, stated in page.items():
        try:
            if importlib.metadata.version(package).partition("+")[0] == pinned(package):
                assert licences.licence(package) == stated, package
        except importlib.metadata.PackageNotFoundError:
            continue


def pinned(package: str) -> str:
    lines = (licences.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))


def test_a_package_that_states_nothing_is_not_passed_over(monkeypatch):
    monkeypatch.setattr(licences, "UNSTATED", {})
    with pytest.raises(ValueError, match="espeakng-loader does not state its licence"):
        licences.licence("espeakng-loader")

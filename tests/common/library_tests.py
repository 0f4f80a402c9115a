"""The common tests of transformers, which are in its sdist and not in its wheel.

`MSFSER_TRANSFORMERS_SDIST` is the unpacked sdist; `make common` fetches it and sets the variable.
"""

import importlib
import os
import sys
import types
from pathlib import Path

import pytest

_PACKAGE = "transformers_tests"


def _stub(name: str, **attributes) -> None:
    """A module that the tests import and that is not in the sdist."""
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


def library_tests(name: str) -> types.ModuleType:
    """A module of the sdist's `tests`, such as `test_modeling_common`; without an sdist the caller's is skipped."""
    folder = os.environ.get("MSFSER_TRANSFORMERS_SDIST")
    if not folder:
        pytest.skip("needs the sdist of transformers: run `make common`", allow_module_level=True)
    tests = Path(folder) / "tests"
    if not (tests / f"{name}.py").is_file():
        pytest.fail(f"MSFSER_TRANSFORMERS_SDIST={folder}: there is no tests/{name}.py", pytrace=False)
    if _PACKAGE not in sys.modules:
        _stub(_PACKAGE, __path__=[str(tests)])
        for part in ("exporters", "generation", "utils"):
            _stub(f"{_PACKAGE}.{part}", __path__=[])
        _stub(f"{_PACKAGE}.exporters.test_export", ExportTesterMixin=object)
        _stub(f"{_PACKAGE}.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
        # What the configuration tests set and look for again, as far as it applies to a composite config.
        _stub(f"{_PACKAGE}.utils.test_configuration_utils", config_common_kwargs={"return_dict": False})
        _stub("fetch_hub_objects_for_ci", url_to_local_path=str)
        import transformers.utils

        # It would import the sdist's source a second time, and its result is not used.
        transformers.utils.direct_transformers_import = lambda *args, **kwargs: None
    return importlib.import_module(f"{_PACKAGE}.{name}")

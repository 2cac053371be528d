"""The doctor tries things for real and says what each missing extra would add."""

import importlib
from types import ModuleType

import pytest

from avtlm import doctor as module
from avtlm.doctor import EXTRAS, doctor

real_import = importlib.import_module


@pytest.fixture
def broken_imports(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """Modules that fail to import, and how; the others import for real or, being slow, not at all."""
    errors: dict[str, Exception] = {}

    optional = {name for modules, _ in EXTRAS.values() for name in modules}

    def fake(name: str, package: str | None = None) -> ModuleType:
        if name in errors:
            raise errors[name]
        return module if name in optional else real_import(name, package)

    monkeypatch.setattr(module.importlib, "import_module", fake)
    return errors


def test_a_healthy_machine_has_no_problems(broken_imports: dict[str, Exception]) -> None:
    found = doctor()
    assert found.problems == []
    assert all(finding.startswith("installed: ") for finding in found.extras.values())


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_extra_says_how_to_get_it_and_what_for(extra: str, broken_imports: dict[str, Exception]) -> None:
    modules, purpose = EXTRAS[extra]
    broken_imports[modules[0]] = ModuleNotFoundError(f"No module named '{modules[0]}'", name=modules[0])
    finding = doctor().extras[extra]
    assert finding == f"not installed: pip install 'avtlm[{extra}]' adds {purpose}"


def test_without_landmarks_the_doctor_says_what_does_not_work(broken_imports: dict[str, Exception]) -> None:
    broken_imports["mediapipe"] = ModuleNotFoundError("No module named 'mediapipe'", name="mediapipe")
    assert any("Videos cannot be transcribed" in problem for problem in doctor().problems)


def test_a_package_that_does_not_load_is_a_problem(broken_imports: dict[str, Exception]) -> None:
    broken_imports["gradio"] = ImportError("libgone.so: cannot open shared object file")
    assert doctor().extras["demo"].startswith("broken: importing gradio fails (ImportError: libgone.so")
    assert any(problem.startswith("demo: broken") for problem in doctor().problems)


def test_a_missing_codec_is_a_problem(broken_imports: dict[str, Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECODERS", ("h264", "holograms"))
    found = doctor()
    assert found.codecs["decodes"] == "h264"
    assert any("PyAV lacks holograms (decodes)" in problem for problem in found.problems)


def test_attention_is_tried_and_not_guessed(broken_imports: dict[str, Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, backend: str, **options: object) -> object:
        if backend == "sdpa":
            raise NotImplementedError("no kernel")
        return real_attend(*arguments, backend=backend, **options)

    real_attend = module.attend
    monkeypatch.setattr(module, "attend", fail)
    found = doctor().attention
    assert found["sdpa on cpu"] == "does not work here (NotImplementedError)"
    assert found["reference on cpu"].startswith("works")

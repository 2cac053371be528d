"""What a benchmark says it ran on."""

import platform
from pathlib import Path

from benchmarks.hardware import processor


class TestProcessor:
    def test_the_name_is_that_of_the_systems_list(self, tmp_path: Path) -> None:
        path = tmp_path / "cpuinfo"
        path.write_text("processor\t: 0\nmodel name\t: Fast: 9000\n\nprocessor\t: 1\nmodel name\t: Fast: 9000\n")
        assert processor(path) == "Fast: 9000"

    def test_a_list_without_names_leaves_the_architecture(self, tmp_path: Path) -> None:
        path = tmp_path / "cpuinfo"
        path.write_text("processor\t: 0\nmodel name\t:\n")
        assert processor(path) == (platform.processor() or platform.machine())

    def test_so_does_no_list(self, tmp_path: Path) -> None:
        assert processor(tmp_path / "none") == (platform.processor() or platform.machine())

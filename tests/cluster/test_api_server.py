"""The build of the API server for custom resources, where it cannot be built."""

import shutil
import subprocess

from tests.cluster.api_server import BUILD, CANNOT


def test_a_machine_without_debian_s_tools_is_told_what_it_lacks(tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "mkdir", "flock"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [str(tmp_path / "bin" / "bash"), str(BUILD), str(tmp_path / "server")],
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == CANNOT
    assert done.stderr == "no API server for custom resources: this is not Debian\n"

"""`sparsezo submit`: scripts that run, whatever names are in them, and commands that bring the run back."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sparsezo_gui import recipe
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import open_run
from tests.models import small_recipe

SETTINGS = (
    '[mask]\nrule = "random"\ndensity = 0.02\n[update]\nlearning_rate = 1e-3\n[loop]\nsteps = 4\nbatch_size = 4\n'
)
HOSTILE = "it's \"$(touch x)\"; `touch x` & 'RECIPE'"


@pytest.fixture
def recipe_file(tmp_path):
    return small_recipe(tmp_path, f"train = 12\nvalidation = 4\ntest = 4\n{SETTINGS}")


def submitted(run, *arguments):
    code, lines, error = run("submit", *arguments)
    assert code == 0, error
    return "\n".join(lines) + "\n"


def test_a_script_has_the_recipe_in_it(run, recipe_file, tmp_path):
    """As the command would run it here, whatever texts it has; only the run's folder is another."""
    settings = ("--set", f"run.name={HOSTILE}", "--set", f"data.template={{{{ text }}}}\nRECIPE\n{HOSTILE}")
    script = submitted(run, recipe_file, "--to", "ssh", *settings)
    written = script.split("<<'RECIPE_'\n")[1].split("\nRECIPE_\n")[0]
    made = recipe.loads(written, folder=tmp_path)
    assert made.run.name == HOSTILE and HOSTILE in made.data.template
    assert Path(made.run.folder).parent == tmp_path and made.run.folder.isprintable()
    expected = recipe.with_settings(recipe.load(recipe_file), settings[1::2])
    assert recipe.values(made) == recipe.values(expected)


def test_out_writes_the_script_and_tells_what_to_do(run, recipe_file, tmp_path):
    out = tmp_path / "with space.sh"
    told = submitted(run, recipe_file, "--to", "ssh", "--host", "me@there", "--folder", "my runs", "--out", out)
    commands = [shlex.split(line) for line in told.splitlines() if line.startswith("  ")]
    assert [command[0] for command in commands] == ["scp", "ssh", "ssh", "rsync"]
    assert commands[0][-2:] == [str(out), "me@there:r.sh"]
    assert commands[3][-2] == "me@there:my runs/r/" and commands[3][-1].endswith("/home/runs/r/")
    assert out.read_text() == submitted(
        run, recipe_file, "--to", "ssh", "--host", "me@there", "--folder", "my runs"
    ).replace("scp -- r.sh", f"scp -- {shlex.quote(str(out))}")
    code, lines, _ = run("submit", recipe_file, "--to", "ssh", "--json")
    assert code == 0 and json.loads(lines[0])["script"].startswith("#!/bin/bash\n")


@pytest.mark.parametrize("to", ["ssh", "slurm"])
def test_names_are_quoted(run, recipe_file, tmp_path, to):
    """A script with hostile names does nothing but what it says, as bash reads it."""
    script = submitted(
        run, recipe_file, "--to", to, "--folder", HOSTILE, "--set", f"run.name={HOSTILE}", "--setup", "true",
    )  # fmt: skip
    stub = tmp_path / "bin"
    stub.mkdir()
    for name in ("torchrun", "srun", "scontrol"):  # of which only the words count here
        (stub / name).write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@" >> "{tmp_path}/words"\n')
        (stub / name).chmod(0o755)
    home = tmp_path / "there"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "PATH": f"{stub}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
                   "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "one"}  # fmt: skip
    subprocess.run(["bash", "-c", script], env=environment, cwd=home, check=True)
    words = (tmp_path / "words").read_text().splitlines()
    assert words[-2] == "train" and (home / HOSTILE / words[-1]).is_file()
    assert not list(tmp_path.rglob("x"))
    (home / HOSTILE / words[-1]).with_suffix("").mkdir()
    ((home / HOSTILE / words[-1]).with_suffix("") / "run.json").touch()
    subprocess.run(["bash", "-c", script], env=environment, cwd=home, check=True)
    assert (tmp_path / "words").read_text().splitlines()[-2] == "resume"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--host", "-oProxyCommand=x"), "--host"), (("--host", "a b"), "--host"), (("--host", "a;b"), "--host"),
        (("--folder", "a\nb"), "--folder"), (("--setup", "a\nb"), "--setup"), (("--folder", ""), "--folder"),
        (("--nodes", "2"), "--nodes"), (("--sbatch=--time=1",), "--sbatch"), (("--out", "a\nb"), "--out"),
    ],
)  # fmt: skip
def test_what_is_not_safe_or_makes_no_sense_is_refused(run, recipe_file, arguments, fault):
    code, lines, error = run("submit", recipe_file, "--to", "ssh", *arguments)
    assert (code, lines) == (2, []) and fault in error


def test_slurm_has_its_options_and_all_nodes(run, recipe_file):
    script = submitted(
        run, recipe_file, "--to", "slurm", "--nodes", 3, "--workers", 2, "--sbatch=--time=2:00:00", "--host", "hpc"
    )
    header = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --nodes=3", "#SBATCH --ntasks-per-node=1", "#SBATCH --time=2:00:00"} <= {*header}
    assert script.splitlines()[1 : len(header) + 1] == header, "sbatch reads options up to the first other line"
    assert "--nproc-per-node 2" in script and "sbatch r.sh" in script


def test_files_of_this_computer_are_named(run, recipe_file):
    _, _, error = run("submit", recipe_file, "--to", "ssh")
    assert str(recipe_file.parent / "llama") in error and str(recipe_file.parent / "data.jsonl") in error


@pytest.mark.slow
def test_the_script_runs_and_resumes(run, recipe_file, tmp_path):
    """By bash and torchrun, on two workers; a second start finds nothing left to do."""
    script = submitted(run, recipe_file, "--to", "ssh", "--workers", 2)
    home, out = tmp_path / "there", tmp_path / "out"
    home.mkdir()
    bin = Path(sys.executable).parent
    root = Path(recipe.__file__).parents[2]
    environment = {
        **os.environ, "HOME": str(home), "PATH": f"{bin}:{os.environ['PATH']}", "PYTHONPATH": str(root),
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip
    for _ in range(2):
        done = subprocess.run(["bash", "-c", script], env=environment, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        out.write_text(done.stderr)
    made = open_run(home / "sparsezo-runs" / "r")
    assert len(journal.read(made.journal).steps) == 4
    assert "2 workers share" in out.read_text()

"""The command `submit`: a script that runs a recipe on another computer or a cluster, and how to bring the run back.

The script contains the recipe, so that one file is all there is to copy. It starts the run, or resumes it where it is
already there. Whatever a recipe or the command line names is quoted for the shell, and the folder of a run has a name
that needs no quoting.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from sparsezo_gui import recipe as recipes
from sparsezo_gui.cli.command import FLAG, RECIPE, SETTINGS, argument, command, positive, recipe_of
from sparsezo_gui.console import Console
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.paths import PATHS

HOST = re.compile(r"[\w.@:\[\]%][\w.@:\[\]%-]*", re.ASCII)
FOLDER = "sparsezo-runs"
RESTARTS = 3  # of a run in which a worker failed
THREADS = "export OMP_NUM_THREADS=$(( threads > 0 ? threads : 1 ))"
PORT = 29400  # at which the workers of several computers meet


@command(
    "submit", "Write a script that runs a recipe on another computer or a cluster, and say how to bring the run back.",
    RECIPE, SETTINGS,
    argument("--to", required=True, choices=("slurm", "ssh"), help="a cluster with Slurm, or one computer over SSH"),
    argument("--host", default="HOST", help="where you log in, such as me@cluster.example.org"),
    argument("--nodes", type=positive, default=1, metavar="N", help="computers that share the run (with slurm)"),
    argument("--workers", type=positive, default=1, metavar="N", help="processes on each computer, such as its GPUs"),
    argument("--sbatch", action="append", default=[], metavar="OPTION", help="an option of sbatch, such as "
             "--sbatch=--gpus-per-node=2; can be repeated"),
    argument("--setup", default="", metavar="COMMAND", help="what makes SparseZO available there, such as 'source "
             "venv/bin/activate'"),
    argument("--folder", default=FOLDER, metavar="DIR", help="folder there, in which the run's folder is made; it must "
             "be one that all computers share (default: sparsezo-runs in your home)"),
    argument("--out", metavar="FILE", help="write the script to FILE (default: print it)"),
    loads=True,
)  # fmt: skip
def submit(options: argparse.Namespace, console: Console) -> None:
    chosen = recipe_of(options)
    job = Job(
        chosen, options.to, options.host, options.nodes, options.workers, tuple(options.sbatch), options.setup,
        options.folder.removeprefix("~/"), options.trust_remote_code, options.out or "",
    )  # fmt: skip
    script, steps = job.script(), job.steps()
    for path in job.local_files():
        console.note(f"The recipe names '{path}', which is on this computer. Copy it to the same place there.")
    if options.out is None:
        console.result({"script": script, "steps": steps}, script.rstrip("\n"), to_read=True)
        return
    from sparsezo_gui.engine.files import write_text

    write_text(Path(options.out), script)
    told = "\n".join(f"{does}\n  {how}" for does, how in steps)
    console.result({"file": options.out, "steps": steps}, f"{options.out}: written.\n{told}")


@dataclass(frozen=True)
class Job:
    """A run elsewhere. Raises `UserError` for what cannot be put safely into a script."""

    recipe: Recipe
    to: str
    host: str
    nodes: int
    workers: int
    sbatch: tuple[str, ...]
    setup: str
    folder: str
    trust: bool
    out: str

    def __post_init__(self) -> None:
        if not HOST.fullmatch(self.host):
            raise UserError(f"--host {self.host!r}: not the name of a computer, such as me@cluster.example.org.")
        given = [("--setup", self.setup), ("--folder", self.folder), ("--out", self.out)]
        for flag, text in (*given, *(("--sbatch", option) for option in self.sbatch)):
            if not text.isprintable():
                raise UserError(f"{flag} {text!r}: has a line break or another control character. Leave it out.")
        for option in self.sbatch:
            if not option.startswith("-"):
                raise UserError(f"--sbatch {option!r}: not an option of sbatch, such as --sbatch=--time=2:00:00.")
        if self.to == "ssh" and (self.nodes > 1 or self.sbatch):
            raise UserError("--nodes and --sbatch are for Slurm: set --to slurm, or leave them out.")
        if not self.folder:
            raise UserError("--folder is empty. Name a folder, or leave it out.")

    @property
    def name(self) -> str:
        """Name of the run, as a plain file name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.recipe.run.name).strip("-.") or "run"

    def script(self) -> str:
        """The script."""
        run = self.recipe.run.model_copy(update={"folder": self.name})
        text = recipes.dump(self.recipe.model_copy(update={"run": run}))
        end = "RECIPE"
        while end in text:
            end += "_"
        flag = f" {FLAG}" if self.trust else ""
        lines = [
            "#!/bin/bash", *(self._header() if self.to == "slurm" else ()),
            *(f"# {does} {how}" for does, how in self.steps()),
            "set -eu", 'cd -- "$HOME"', f"mkdir -p -- {shlex.quote(self.folder)}", f"cd -- {shlex.quote(self.folder)}",
            *([self.setup] if self.setup else ()),
            f"cat > {self.name}.toml <<'{end}'", text.rstrip("\n"), end,
            f"if [ -e {self.name}/run.json ]; then set -- resume {self.name}{flag}; "
            f"else set -- train {self.name}.toml{flag}; fi",
            *(self._together() if self.to == "slurm" else self._alone()),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def steps(self) -> list[tuple[str, str]]:
        """What to do with the script: what each command does, and the command."""
        file = self.out or f"{self.name}.sh"
        there, log = f"{self.name}.sh", f"{self.name}.log"
        start = f"sbatch {there}" if self.to == "slurm" else f"nohup bash {there} > {log} 2>&1 < /dev/null &"
        from_there = f"{self.host}:{self.folder}/{self.name}/"
        return [
            ("Copy the script:", shlex.join(["scp", "--", os.path.join(".", file) if ":" in file else file,
                                             f"{self.host}:{there}"])),
            ("Start the run:", shlex.join(["ssh", "--", self.host, start])),
            ("Watch it:", shlex.join(["ssh", "--", self.host, f"tail -f {log}"])),
            ("Bring it back, now and then or at the end:",
             shlex.join(["rsync", "-a", "-s", "--mkpath", "--", from_there, f"{self._home()}/{self.name}/"])),
        ]  # fmt: skip

    def local_files(self) -> list[str]:
        """Paths in the recipe that exist on this computer."""
        named = [
            (value, names)
            for table, key, names in PATHS if key != "folder"
            for given in [getattr(getattr(self.recipe, table), key, ())]
            for value in ([given] if isinstance(given, str) else given)
        ]  # fmt: skip
        return [value for value, names in named if value and value not in names and os.path.exists(value)]

    def _home(self) -> Path:
        from sparsezo_gui.engine.runs.folder import runs_home

        return runs_home()

    def _header(self) -> list[str]:
        own = {"job-name": self.name, "output": f"{self.name}.log", "nodes": self.nodes, "ntasks-per-node": 1}
        return [
            *(f"#SBATCH --{key}={value}" for key, value in own.items()),
            "#SBATCH --open-mode=append", "#SBATCH --requeue", *(f"#SBATCH {option}" for option in self.sbatch),
        ]  # fmt: skip

    def _together(self) -> list[str]:
        """On all computers of a Slurm job: their workers meet at the first one."""
        return [
            f"threads=$(( ${{SLURM_CPUS_PER_TASK:-1}} / {self.workers} ))",
            THREADS,
            'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            f'exec srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node {self.workers} --max-restarts {RESTARTS} '
            f'--rdzv-backend c10d --rdzv-endpoint "$first:{PORT}" --rdzv-id "$SLURM_JOB_ID" '
            '-m sparsezo_gui.cli "$@"',
        ]

    def _alone(self) -> list[str]:
        """On one computer."""
        return [
            f"threads=$(( $(nproc) / {self.workers} ))",
            THREADS,
            f"exec torchrun --standalone --nproc-per-node {self.workers} --max-restarts {RESTARTS} "
            '-m sparsezo_gui.cli "$@"',
        ]

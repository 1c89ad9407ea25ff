"""Two users of one cluster and one cache, set up by the commands of docs/slurm.md."""

import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster import FIRST_ID, PROJECT_GROUP, Cluster
from submit import FAST_PROFILE, RUN_PATH

from medmim.common.files import SIDECAR_SUFFIX
from runs import MINI, ROOT, copy_checkout

USERS = ("anna", "ben")
DOCUMENTED_FOLDER = "/shared/medmim"
ODIR, PMC = (f"{RUN_PATH}/qa/{source}.parquet" for source in ("odir", "pmc"))


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with Cluster(users=USERS) as cluster:
        yield cluster


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter and write to."""
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def read_commands(project: Path) -> tuple[str, str, dict[str, object]]:
    """The documented commands of the one who makes the folder, those of everyone, and the lines of the config."""
    section = (ROOT / "docs/slurm.md").read_text(encoding="utf-8").split("## Several users, one cache\n")[1].split("\n## ")[0]
    assert f"chgrp {PROJECT_GROUP} " in section and DOCUMENTED_FOLDER in section
    make_folder, everyone = re.findall(r"```bash\n(.*?)```", section, re.S)
    [config] = re.findall(r"```yaml\n(.*?)```", section, re.S)
    return (
        make_folder.replace(DOCUMENTED_FOLDER, shlex.quote(str(project))),
        everyone,
        yaml.safe_load(config.replace(DOCUMENTED_FOLDER, str(project))),
    )


class User:
    """A user with a clone at home, who runs Snakemake there with the SLURM profile."""

    def __init__(self, cluster: Cluster, name: str, commands: str, settings: dict[str, object]) -> None:
        self.cluster, self.name, self.commands = cluster, name, commands
        self.id = FIRST_ID + 1 + USERS.index(name)
        self.clone = cluster.folder / "home" / name / "medmim"
        if self.clone.exists():
            shutil.rmtree(self.clone)
        copy_checkout(self.clone)
        shutil.copytree(FAST_PROFILE, self.clone / "fast")
        config = yaml.safe_load(MINI.read_text(encoding="utf-8")) | settings
        (self.clone / "mini.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        for path in (self.clone, *self.clone.rglob("*")):
            os.chown(path, self.id, self.id, follow_symlinks=False)

    def run(self, script: str, **environment: str) -> str:
        """What a script said, after the documented commands."""
        ended = self.cluster.run_as_user(
            self.name, f"{self.commands}\n{script}", PYTHONPATH=str(self.clone / "workflow"), **environment
        )
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-6000:]
        return ended.stdout + ended.stderr

    def run_snakemake(self, *arguments: str, **environment: str) -> str:
        """What Snakemake said."""
        words = [sys.executable, "-m", "snakemake", *arguments, "--profile", "slurm", "--profile", "./fast"]
        return self.run(f"cd medmim\n{shlex.join([*words, '--configfile', 'mini.yaml'])}", **environment)


def list_owners(cluster: Cluster) -> dict[str, int]:
    """User of each SLURM job, by its id."""
    return {number: int(re.findall(r"\d+", job["UserId"])[-1]) for number, job in cluster.list_jobs().items()}


def check_permissions(project: Path) -> None:
    """All that is in a folder is the group's to read and write."""
    for path in project.rglob("*"):
        found = path.stat()
        wanted = stat.S_IRWXG | stat.S_ISGID if path.is_dir() else stat.S_IRGRP | stat.S_IWGRP
        assert found.st_gid == FIRST_ID and found.st_mode & wanted == wanted, f"{path}: {found.st_gid} {found.st_mode:o}"


def test_one_takes_what_another_computed(cluster: Cluster, place: Path) -> None:
    project = place / "medmim"
    make_folder, everyone, settings = read_commands(project)
    anna, ben = (User(cluster, name, everyone, settings) for name in USERS)
    anna.run(make_folder)

    anna.run_snakemake(ODIR)
    of_anna = list_owners(cluster)
    assert set(of_anna.values()) == {anna.id} and (anna.clone / ODIR).stat().st_uid == anna.id
    check_permissions(project)

    said = ben.run_snakemake(ODIR)
    assert "taken from the cache" in said and list_owners(cluster) == of_anna
    assert (ben.clone / ODIR).samefile(anna.clone / ODIR), "one file, though another user's"
    assert (ben.clone / f"{ODIR}{SIDECAR_SUFFIX}").stat().st_uid == ben.id

    ben.run_snakemake(PMC)
    of_both = list_owners(cluster)
    assert {user for number, user in of_both.items() if number not in of_anna} == {ben.id}
    anna.run_snakemake(PMC)
    assert list_owners(cluster) == of_both and (anna.clone / PMC).samefile(ben.clone / PMC)
    check_permissions(project)


def test_both_work_on_the_same_results(cluster: Cluster, place: Path) -> None:
    """With a umask that keeps all others out."""
    project = place / "medmim"
    make_folder, everyone, settings = read_commands(project)
    results = project / "results"
    everyone = everyone.replace("umask 002", "umask 007")
    anna, ben = (User(cluster, name, everyone, settings | {"results": str(results)}) for name in USERS)
    odir, pmc = (str(results / Path(path).relative_to("results")) for path in (ODIR, PMC))
    anna.run(make_folder)
    anna.run_snakemake(odir)
    before = list_owners(cluster)
    assert "Nothing to be done" in ben.run_snakemake(odir) and list_owners(cluster) == before
    ben.run(f"rm {shlex.quote(odir)}; echo damaged > {shlex.quote(odir)}")
    said = ben.run_snakemake(odir, pmc, MEDMIM_CACHE="")
    assert "was altered" in said
    assert {user for number, user in list_owners(cluster).items() if number not in before} == {ben.id}
    assert "Nothing to be done" in anna.run_snakemake(odir, pmc)
    check_permissions(project)

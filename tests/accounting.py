"""The suite's cluster with accounting (slurmdbd over MariaDB), a QOS that lets one job run at a time, and host memory
that is held against what a job asked for.

Needs Debian's slurmdbd and mariadb-server besides, which are large: where they are missing its tests are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress

from cluster import PATH, CannotStart, SlurmCluster
from ports import free_ports

NEEDS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr")
ONE_AT_A_TIME = "one"

STORAGE = """
AuthType=auth/none
DbdHost=localhost
DbdPort={port}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageUser={user}
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""

CONTROLLER = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
AccountingStorageEnforce=associations,limits,qos
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill,NoShared
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=200
MinJobAge=2
"""


class AccountingCluster(SlurmCluster):
    @staticmethod
    def missing() -> str:
        lacking = [name for name in NEEDS if shutil.which(name, path=PATH) is None]
        return SlurmCluster.missing() or (f"{', '.join(lacking)} not installed" if lacking else "")

    def start(self) -> None:
        (port,) = free_ports(1)
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        self.more = CONTROLLER.format(port=port)
        self._start_database(user)
        file = self.folder / "slurmdbd.conf"
        file.write_text(STORAGE.format(port=port, user=user, folder=self.folder))
        file.chmod(0o600)
        # What sacctmgr needs to find slurmdbd; the whole of it is written when the controller starts.
        beginning = f"ClusterName=test\nSlurmctldHost=localhost\nAuthType=auth/none\n{self.more}"
        (self.folder / "slurm.conf").write_text(beginning)
        self._daemon("slurmdbd", "slurmdbd", "-D")
        self._wait_for_manager()
        self._manage("add", "cluster", "test")
        self._manage("add", "account", "lab")
        self._manage("add", "user", user, "account=lab")
        self._manage("add", "qos", ONE_AT_A_TIME, "maxjobsperuser=1")
        self._manage("modify", "user", user, "set", f"qos+={ONE_AT_A_TIME}")
        super().start()

    def _manage(self, *words: str) -> None:
        self.run("sacctmgr", "--immediate", *words)

    def _wait_for_manager(self) -> None:
        def answers() -> bool:
            with suppress(RuntimeError):
                self.run("sacctmgr", "--noheader", "show", "cluster")
                return True
            return False

        self.wait_for(answers, 120, "slurmdbd")

    def _start_database(self, user: str) -> None:
        """Listens on a socket in the folder alone. Who starts it is its only user."""
        data, socket = self.folder / "database", self.folder / "mysql.sock"
        common = [f"--datadir={data}", f"--user={user}"]
        made = self.run("mariadb-install-db", *common, "--skip-test-db", check=False)
        if not (data / "mysql").is_dir():
            raise CannotStart(f"mariadb-install-db: {made[-300:]}")
        self._daemon("mariadbd", "mariadbd", "--no-defaults", *common, f"--socket={socket}", "--skip-networking")
        self.env["MYSQL_UNIX_PORT"] = str(socket)

"""streampulse_facts: PostgreSQL clusters that hold data of an application."""

from pathlib import Path

from ansible_runs import ANSIBLE, load


def test_only_a_cluster_with_a_database_of_its_users_counts(tmp_path: Path) -> None:
    facts = load(ANSIBLE / "playbooks/library/streampulse_facts.py")
    for name, databases in (("15/main", ("1", "5", "16384")), ("17/main", ("1", "4", "5"))):
        data = tmp_path / "data" / name
        for database in databases:
            (data / "base" / database).mkdir(parents=True)
        (tmp_path / "etc" / name).mkdir(parents=True)
        (tmp_path / "etc" / name / "postgresql.conf").write_text(f"#x\ndata_directory = '{data}'\t# use data\n")
    assert facts.clusters(tmp_path / "etc") == ["15/main"]
    assert facts.clusters(tmp_path / "nothing") == []

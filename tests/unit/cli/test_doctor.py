"""doctor: what it finds on this machine is the machine's business; what it says of a project is tested."""

import json
import os
import socket

from orchestrator import doctor, folders


def found(sandbox, *words):
    code, out, _ = sandbox(*words, "doctor", "--format", "json")
    return code, {check["name"]: check for check in map(json.loads, out.splitlines())}


def test_a_healthy_project_has_nothing_to_complain_of_but_the_machine(project, sandbox):
    _, checks = found(sandbox)
    assert checks["sandbox.yaml"]["verdict"] == checks["python"]["verdict"] == checks["uv"]["verdict"] == "ok"
    assert checks["sandbox"]["verdict"] == "note"
    assert {check["verdict"] for check in checks.values()} <= {"ok", "note", "problem"}
    assert all(check["hint"] for check in checks.values() if check["verdict"] == "problem")


def test_a_wrong_spec_is_a_problem_with_its_line(project, sandbox):
    (project / "sandbox.yaml").write_text("models:\n  hello: nowhere\n")
    code, checks = found(sandbox)
    assert code == 1
    assert checks["sandbox.yaml"]["verdict"] == "problem"
    assert "sandbox.yaml:2" in checks["sandbox.yaml"]["message"]


def test_a_taken_port_is_a_problem_that_names_its_owner(project, sandbox):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (project / "sandbox.yaml").write_text(f"gateway: {{port: {port}}}\nmodels: {{}}\n")
        code, checks = found(sandbox)
    assert code == 1
    assert f"port {port} is taken by" in checks["port"]["message"]
    assert f"pid {os.getpid()}" in checks["port"]["message"]


def test_an_engine_that_does_not_answer_is_a_problem_only_where_docker_is_asked_for(project, sandbox, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")
    assert found(sandbox)[1]["docker engine"]["verdict"] == "note"
    (project / "sandbox.yaml").write_text("runtime: docker\nmodels: {}\n")
    code, checks = found(sandbox)
    assert (code, checks["docker engine"]["verdict"]) == (1, "problem")


def test_a_lost_keeper_is_a_problem(project, sandbox):
    place = folders.Folders(str(project))
    folders.private(place.state)
    record = {"pid": 1, "start_time": -1, "boot_id": folders.boot_id(), "orders": {}}
    folders.write_json(place.keeper_record, record)
    code, checks = found(sandbox)
    assert code == 1
    assert checks["keeper"] == {
        "name": "keeper",
        "verdict": "problem",
        "message": "is gone: a crash would not be repaired",
        "hint": "any command restores it: sandbox ps",
    }


def test_without_a_project_the_machine_is_still_looked_at(tmp_path, monkeypatch, sandbox):
    monkeypatch.chdir(tmp_path)
    _, checks = found(sandbox)
    assert checks["sandbox.yaml"]["verdict"] == "note"
    assert "docker engine" in checks
    assert "port" not in checks


def test_text_is_a_line_per_check_and_a_line_for_the_next_step(project, sandbox, monkeypatch):
    check = doctor.Check("thing", "problem", "is broken", "mend it")
    monkeypatch.setattr(doctor, "examine", lambda *_: [check, doctor.Check("other", "ok", "fine")])
    assert sandbox("doctor") == (1, "✖ thing: is broken\n    mend it\n✔ other: fine\n", "")

"""The command: run every look of this host at the same time, and print the findings."""

import argparse
import dataclasses
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

from streampulse.core.errors import OperatorError, SettingsError, one_line
from streampulse.core.kafka import silence
from streampulse.host.check import api, job, kafka, machine, postgres, spark
from streampulse.host.check.host import LOOKS, Finding, Host, Look, fault

#: The modules that register looks, in the order of their findings.
SUBJECTS = (machine, kafka, spark, postgres, job, api)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse check``."""
    parser.add_argument("--json", action="store_true", help="print every finding as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the looks of this host, print the findings, and return 1 if there is a fault."""
    silence()
    findings = findings_of(Host())
    if arguments.json:
        document = {"host": socket.gethostname(), "findings": [dataclasses.asdict(each) for each in findings]}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        for each in findings:
            said = each.seen if each.ok else f"{each.code}: {each.cause}. Fix: {each.fix}"
            sys.stdout.write(f"{'ok   ' if each.ok else 'FAULT'} {each.check}: {said}\n")
    return 0 if all(each.ok for each in findings) else 1


def findings_of(host: Host) -> list[Finding]:
    """Run every look that applies to this host and return the findings in the order of :data:`SUBJECTS`."""
    try:
        services = host.services()
    except OperatorError as error:
        return [fault("SP-CHECK-001", "units", str(error), "inv up")]
    except OSError as error:
        return [fault("SP-CHECK-003", "units", f"systemd does not answer ({error})", "systemctl status")]
    order = [subject.__name__ for subject in SUBJECTS]
    looks = sorted(LOOKS, key=lambda each: order.index(each[2].__module__))
    wanted = [(name, function) for name, about, function in looks if not about or about & services.keys()]
    # Each waits for a service of its own; together they take as long as the slowest.
    with ThreadPoolExecutor(max(1, len(wanted))) as pool:
        found = pool.map(lambda each: _findings(each[0], each[1], host, services), wanted)
        return [finding for findings in found for finding in findings]


def _findings(name: str, function: Look, host: Host, services: dict[str, str]) -> list[Finding]:
    import psycopg2
    from kafka.errors import KafkaError

    service = {"spark": "spark-master"}.get(name.split(".")[0], name.split(".")[0])
    try:
        return list(function(host, services))
    except SettingsError as error:
        return [fault("SP-CHECK-001", name, f"a setting is missing or wrong ({error})", "inv up")]
    except OperatorError as error:
        return [fault("SP-CHECK-001", name, str(error), "inv up")]
    except KafkaError as error:
        return [fault("SP-KAFKA-001", name, f"Kafka does not answer ({one_line(error)})", "inv logs kafka")]
    except OSError as error:
        return [fault("SP-CHECK-002", name, f"no answer ({one_line(error)})", f"inv logs {service}")]
    except psycopg2.Error as error:
        return [fault("SP-POSTGRES-001", name, f"PostgreSQL refuses ({one_line(error)})", "inv logs postgres")]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        cause = f"an answer that is not understood ({one_line(error)})"
        return [fault("SP-CHECK-002", name, cause, f"inv logs {service}")]

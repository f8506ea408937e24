"""``inv sql``: psql as the reading role, on the host of PostgreSQL and through SSH. No password leaves that host."""

import os
import shlex
import sys

from streampulse.core.errors import OperatorError
from streampulse_ops.command import last_words, program_environment
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts.ssh import Remote, login

#: The reading role's connection, written by the role base.
READER_FILE = "/etc/streampulse/postgres-reader.env"
#: Arguments: the file of the connection, and the query if there is one. Root reads the file. psql runs as nobody: its
#: commands \! and \copy are then nobody's as well. The role may only read; the option also refuses temporary tables.
SCRIPT = """
. "$1" || exit 3
export PGHOST="$STREAMPULSE_POSTGRES_HOST" PGPORT="$STREAMPULSE_POSTGRES_PORT"
export PGUSER="$STREAMPULSE_POSTGRES_USER" PGDATABASE="$STREAMPULSE_POSTGRES_DATABASE"
export PGPASSWORD="$STREAMPULSE_POSTGRES_PASSWORD" PGAPPNAME=streampulse-sql PSQL_HISTORY=/dev/null HOME=/
export PGOPTIONS="-c default_transaction_read_only=on -c timezone=UTC"
shift
exec setpriv --reuid=nobody --regid=nogroup --clear-groups \\
    psql --no-psqlrc --set=ON_ERROR_STOP=1 ${1+--command="$1"}
"""


def run(session: Session, query: str) -> None:
    """Print the result of a query, or open psql without one.

    :raises OperatorError: the host is down, or PostgreSQL refuses the query.
    """
    host = session.environment.require_group("postgres")[0]
    session.require_running(host)
    words = ["sh", "-c", SCRIPT, "sh", READER_FILE, *([query] if query else [])]
    if not query and sys.stdin.isatty():
        way = login(session.environment, host)
        as_root = words if way.user == "root" else ["sudo", *words]
        command = [*way.command("-t"), shlex.join(as_root)]
        os.execvpe(command[0], command, program_environment())  # noqa: S606 - a list made here
    if not query:
        raise OperatorError("psql needs a terminal; give it the query: inv sql 'SELECT count(*) FROM stream_state'")
    with Remote(session.environment, host) as remote:
        code, output, errors = remote.run(words)
    sys.stdout.write(output)
    sys.stdout.flush()
    if code != 0:
        raise OperatorError(f"{last_words(errors, code)}. See docs/sql.md, inv doctor --env {session.name}")

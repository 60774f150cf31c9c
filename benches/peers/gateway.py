"""A gateway for the benchmark kit: certificates, secrets and a configuration in a directory, made with the program."""

import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


def program():
    """$PMGATE, else what `make build` leaves."""
    if "PMGATE" in os.environ:
        return os.environ["PMGATE"]
    built = sorted(HERE.parent.parent.glob("target/*/release/pmgate"))
    if not built:
        raise SystemExit("there is no program: run make build, or set PMGATE")
    return str(built[0])


def prepare(directory, listen, pdus, poll, more=()):
    """Writes all that `pmgate serve --config DIRECTORY/gateway.toml` needs; pdus: [(id, address)]."""
    at = pathlib.Path(directory).resolve()
    (at / "state").mkdir(parents=True, exist_ok=True)
    ca = ["--dir", str(at / "ca")]
    if not (at / "ca").exists():
        run = lambda *args: subprocess.run([program(), "ca", *args], check=True, stdout=subprocess.DEVNULL)
        run("init", *ca, "--domain", "bench.local")
        run("issue", *ca, "--role", "server", "--host", "127.0.0.1", "server")
        run("issue", *ca, "--role", "operator", "client")
    for name, text in [("community", "public"), ("write-community", "private")]:
        with open(at / name, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)
    lines = [
        'rack = "bench"', f'listen = "{listen}"', 'state_dir = "state"',
        "[tls]", 'certificate = "ca/server.pem"', 'key = "ca/server.key"', 'client_ca = "ca/ca.pem"',
        "[poll]", *(f"{key} = {value}" for key, value in poll.items()),
        "[secret.v2c]", 'community_file = "community"', 'write_community_file = "write-community"',
    ]
    for pdu, address in pdus:
        lines += ["[[pdu]]", f'id = "{pdu}"', f'snmp = "{address}"', 'secret = "v2c"', *more]
    (at / "gateway.toml").write_text("\n".join(lines) + "\n")
    return at


def serve(at):
    os.execv(program(), ["pmgate", "serve", "--config", str(at / "gateway.toml")])

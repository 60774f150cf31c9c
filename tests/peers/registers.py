"""A Modbus TCP server by pymodbus that has just the registers of a .regs file.

registers.py FILE.regs PORT [UNIT]      other addresses answer exception 2; coils can be written

A line of the file: TABLE ADDRESS TYPE VALUE
  TABLE    input, holding, coil, discrete; or device_id (the address is the number of the object)
  TYPE     bit, u16, i16, u32, i32, u64, i64, f32, f64; textN: N registers, padded with NUL;
           with -low: the low word first (textN-low: the two letters of a register swapped)
  VALUE    a number, decimal or 0x..., nan, or a text in quotes
Lines that begin with # and empty ones are left out.
"""

import asyncio
import shlex
import struct
import sys

from pymodbus import ModbusDeviceIdentification
from pymodbus.datastore import ModbusDeviceContext, ModbusServerContext, ModbusSparseDataBlock
from pymodbus.server import ModbusTcpServer

PACK = {"u16": ">H", "i16": ">h", "u32": ">I", "i32": ">i", "u64": ">Q", "i64": ">q", "f32": ">f", "f64": ">d"}


def words(kind, text):
    kind, low = kind.removesuffix("-low"), kind.endswith("-low")
    if kind.startswith("text"):
        data = text.encode().ljust(2 * int(kind[4:]), b"\0")
        pairs = [data[at:at + 2] for at in range(0, len(data), 2)]
        return [int.from_bytes(pair, "little" if low else "big") for pair in pairs]
    number = float(text) if kind[0] == "f" else int(text, 0)
    data = struct.pack(PACK[kind], number)
    found = [int.from_bytes(data[at:at + 2], "big") for at in range(0, len(data), 2)]
    return found[::-1] if low else found


def load(name):
    tables = {"input": {}, "holding": {}, "coil": {}, "discrete": {}}
    objects = {}
    with open(name, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            parts = shlex.split(line, comments=True)
            if not parts:
                continue
            table, address, kind, value = parts
            address = int(address, 0)
            if table == "device_id":
                objects[address] = value
                continue
            values = [value not in ("0", "off")] if kind == "bit" else words(kind, value)
            for at, one in enumerate(values, address):
                if at in tables[table]:
                    sys.exit(f"{name}:{number}: {table} {at} is there already")
                tables[table][at] = one
    return tables, objects


class Block(ModbusSparseDataBlock):
    """Registers of a file; pymodbus adds one to the address on the wire."""

    def __init__(self, values):
        super().__init__({address + 1: value for address, value in values.items()} or {0: 0})


async def main(name, port, unit):
    tables, objects = load(name)
    device = ModbusDeviceContext(
        co=Block(tables["coil"]), di=Block(tables["discrete"]), hr=Block(tables["holding"]), ir=Block(tables["input"])
    )
    context = ModbusServerContext(devices={unit: device}, single=False)
    identity = ModbusDeviceIdentification(info=objects) if objects else None
    server = ModbusTcpServer(context, identity=identity, address=("127.0.0.1", port))
    if not await server.listen():
        sys.exit("the server cannot listen there")
    print("ready", flush=True)
    await server.serving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1))

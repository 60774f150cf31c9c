"""A Modbus TCP server by pymodbus with the registers of a NETIO PowerPDU 4C (manual: Modbus/TCP register map)."""

import asyncio
import sys

from pymodbus.datastore import ModbusDeviceContext, ModbusServerContext, ModbusSparseDataBlock
from pymodbus.server import ModbusTcpServer


def wire(values):
    """pymodbus adds one to the address on the wire."""
    return ModbusSparseDataBlock({address + 1: value for address, value in values.items()})


def long(value):
    return [value >> 16, value & 0xFFFF]


inputs = {0: [4998], 1: [2312], 2: [981], 3: [2210], 4: [501]}
inputs |= {101: [1200, 0, 1010, 0], 201: [272, 0, 229, 0]}
inputs |= {300: long(1_234_567), 302: long(70_000), 304: long(0), 306: long(1_164_567), 308: long(0)}
flat = {start + n: value for start, values in inputs.items() for n, value in enumerate(values)}

device = ModbusDeviceContext(
    co=wire({101: True, 102: False, 103: True, 104: False}),
    di=wire({0: False}),
    hr=wire({0: 1, 1: 4, 2: 4}),
    ir=wire(flat),
)


async def main():
    server = ModbusTcpServer(ModbusServerContext(devices=device, single=True), address=("127.0.0.1", int(sys.argv[1])))
    await server.listen()
    print("ready", flush=True)
    await server.serving


asyncio.run(main())

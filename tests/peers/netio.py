"""A Modbus server by pymodbus with the registers of a NETIO PowerPDU 4C (manual: Modbus/TCP register map).

netio.py PORT        Modbus TCP, one unit
netio.py DEVICE      Modbus RTU at 9600 baud, units 1 and 2; the second draws twice as much
"""

import asyncio
import sys

from pymodbus import FramerType
from pymodbus.datastore import ModbusDeviceContext, ModbusServerContext, ModbusSparseDataBlock
from pymodbus.server import ModbusSerialServer, ModbusTcpServer


def wire(values):
    """pymodbus adds one to the address on the wire."""
    return ModbusSparseDataBlock({address + 1: value for address, value in values.items()})


def long(value):
    return [value >> 16, value & 0xFFFF]


def device(times):
    inputs = {0: [4998], 1: [2312], 2: [981], 3: [2210 * times], 4: [501 * times]}
    inputs |= {101: [1200 * times, 0, 1010 * times, 0], 201: [272 * times, 0, 229 * times, 0]}
    inputs |= {300: long(1_234_567), 302: long(70_000), 304: long(0), 306: long(1_164_567), 308: long(0)}
    flat = {start + n: value for start, values in inputs.items() for n, value in enumerate(values)}
    return ModbusDeviceContext(
        co=wire({101: True, 102: False, 103: True, 104: False}),
        di=wire({0: False}),
        hr=wire({0: 1, 1: 4, 2: 4}),
        ir=wire(flat),
    )


async def main(where):
    if where.isdigit():
        context = ModbusServerContext(devices=device(1), single=True)
        server = ModbusTcpServer(context, address=("127.0.0.1", int(where)))
    else:
        context = ModbusServerContext(devices={1: device(1), 2: device(2)}, single=False)
        server = ModbusSerialServer(context, framer=FramerType.RTU, port=where, baudrate=9600)
    if not await server.listen():
        sys.exit("the server cannot listen there")
    print("ready", flush=True)
    await server.serving


asyncio.run(main(sys.argv[1]))

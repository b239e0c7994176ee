"""What a device does a second, how much it holds, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diascope.config import within


@dataclass(frozen=True)
class Machine:
    """A device. Rates are what is reached, not what is printed on the box."""

    name: str
    flops: float
    """Operations a second in large products."""
    memory: float
    """Bytes."""
    price: float = 0.0
    """Money an hour."""
    disk: float = 2e9
    """Bytes a second of reading stored rows."""
    storage_price: float = 0.023
    """Money a GB and month of keeping them (object stores; 0.002 on disks of one's own)."""
    used: float = 0.0
    """Measured bytes of the process with its libraries and the model."""
    ran: tuple[tuple[str, float], ...] = ()
    """Measured seconds by unit of work (calibrate.py); where there are none, operations over `flops` stand in."""

    def seconds(self, what: str) -> float | None:
        """Measured seconds of one unit of `what`, or None."""
        return dict(self.ran).get(what)

    def costing(self, price: float, storage_price: float | None = None) -> Machine:
        """The same at other prices."""
        within("price", price, 0, 1e6, "an hour")
        return replace(self, price=price, storage_price=self.storage_price if storage_price is None else storage_price)


# 40 % of 989 TFLOP/s in bfloat16: what well-fed dense products reach. The price is one of 2026's for a rented one.
H100 = Machine("H100", 0.4 * 989e12, 80e9, price=2.5)

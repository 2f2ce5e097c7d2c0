"""Who a device is: the fleet's certificate authority, paired devices, and how a device pairs."""

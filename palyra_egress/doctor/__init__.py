"""What is wrong with a proxy's installation, and what to do; the form is the fleet's."""

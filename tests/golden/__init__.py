"""What every command says, as text that is read in a diff: `make goldens` writes it anew."""

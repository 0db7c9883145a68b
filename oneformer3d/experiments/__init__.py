"""Tables of trainings and chains of commands; nothing in the product imports them."""

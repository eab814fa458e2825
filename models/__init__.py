"""Networks and what they are made of: students, teachers, cards. Import the submodules."""

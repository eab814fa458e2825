"""Study store and teachers become a student."""

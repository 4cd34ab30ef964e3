"""What is measured: latency, memory, quality; and in `recipes`, how what ships is trained."""

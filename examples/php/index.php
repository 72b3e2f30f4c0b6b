<?php
$body = 'g' . getenv('ENTRYPOINT_GENERATION') . " served\n";
header('Content-Length: ' . strlen($body));
echo $body;
